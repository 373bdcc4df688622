import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

/** Reads what ncs-relay writes to a Kafka topic: verified, each event once, a late one never undoing a later one.
 * Settings: BROKERS, TOPIC, GROUP, DATABASE (a file), NCS_SECRETS (one for each Agora product, separated by spaces). */
class Consumer {
  public static void main(String[] args) throws Exception {
    var env = System.getenv();
    Map<String, Object> settings = Map.of("bootstrap.servers", env.get("BROKERS"), "group.id", env.get("GROUP"),
        "auto.offset.reset", "earliest", "enable.auto.commit", "false");
    var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer());
    var main = Thread.currentThread();
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      consumer.wakeup(); // poll and commitSync throw, and close leaves the group
      while (main.isAlive()) LockSupport.parkNanos(10_000_000);
    }));
    try (consumer; var books = new Books(env.get("DATABASE"))) {
      consumer.subscribe(List.of(env.get("TOPIC")));
      while (true) {
        for (var r : consumer.poll(Duration.ofSeconds(1))) handle(books, r); // after an error it comes again
        consumer.commitSync();
      }
    } catch (WakeupException e) { // SIGTERM
    }
  }

  static void handle(Books books, ConsumerRecord<String, byte[]> r) throws Exception {
    byte[] body = r.value() == null ? new byte[0] : r.value();
    long sequence;
    try {
      if (!Agora.signed(body, header(r, "agora-signature-v2"), System.getenv("NCS_SECRETS"))) {
        throw new IOException("not signed with a secret of ours");
      }
      sequence = new ObjectMapper().readTree(body).required("payload").path("sequence").asLong();
    } catch (IOException | IllegalArgumentException e) { // waiting mends nothing; it stays in the topic, there
      System.err.println("refused " + r.topic() + " " + r.partition() + " " + r.offset() + " " + e.getMessage());
      return;
    }
    if (!header(r, "ncs-test").isEmpty()) return; // an operator tries the sink
    String id = header(r, "ncs-event-id"), replay = header(r, "ncs-replay"); // replay: wanted again, though it is known
    books.once(replay.isEmpty() ? id : id + "-r" + replay, r.key() == null ? "" : r.key(), sequence, header(r, "ncs-event"));
  }

  static String header(ConsumerRecord<String, byte[]> r, String name) {
    var header = r.headers().lastHeader(name);
    return header == null || header.value() == null ? "" : new String(header.value(), StandardCharsets.UTF_8);
  }
}
