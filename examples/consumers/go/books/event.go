package books

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
)

// Signed reports whether Agora signed the body, byte for byte as it came, with one of the secrets. They are separated by
// spaces: each of Agora's products has its own.
func Signed(body []byte, signature, secrets string) bool {
	return slices.ContainsFunc(strings.Fields(secrets), func(secret string) bool {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		return hmac.Equal([]byte(hex.EncodeToString(mac.Sum(nil))), []byte(signature))
	})
}

// Sequence is the event's place among those of its entity; 0 where the product has none.
func Sequence(body []byte) (int64, error) {
	var facts struct{ Payload struct{ Sequence int64 } }
	err := json.Unmarshal(body, &facts)
	return facts.Payload.Sequence, err
}

// Key is what an event is known by. On a replay it is another one: an operator wants it done again, so it must not count as
// known.
func Key(id, replay string) string {
	if replay == "" {
		return id
	}
	return id + "-r" + replay
}
