import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.util.HexFormat;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Agora's signature. */
class Agora {
  /** Whether the body, byte for byte as it came, was signed with one of the secrets, which are separated by spaces. */
  static boolean signed(byte[] body, String signature, String secrets) throws GeneralSecurityException {
    boolean signed = false;
    for (String secret : secrets.split(" ")) {
      var mac = Mac.getInstance("HmacSHA256");
      mac.init(new SecretKeySpec(secret.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
      var wanted = HexFormat.of().formatHex(mac.doFinal(body));
      signed |= MessageDigest.isEqual(wanted.getBytes(StandardCharsets.UTF_8), signature.getBytes(StandardCharsets.UTF_8));
    }
    return signed;
  }
}
