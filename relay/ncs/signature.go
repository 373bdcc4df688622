package ncs

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"
)

// Headers that carry the signatures: HMAC of the raw body under the secret, in lower-case hex. Source: callback page,
// "Signature verification".
const (
	HeaderV1 = "Agora-Signature"    // HMAC-SHA1
	HeaderV2 = "Agora-Signature-V2" // HMAC-SHA256
)

// SignV1 returns the value of HeaderV1 for a body.
func SignV1(secret string, body []byte) string { return sign(sha1.New, secret, body) }

// SignV2 returns the value of HeaderV2 for a body.
func SignV2(secret string, body []byte) string { return sign(sha256.New, secret, body) }

func sign(h func() hash.Hash, secret string, body []byte) string {
	mac := hmac.New(h, []byte(secret))
	mac.Write(body)
	return hex.EncodeToString(mac.Sum(nil))
}

// Kind is a kind of signature.
type Kind uint8

// Kinds of signatures.
const (
	V1 Kind = 1 // HMAC-SHA1, HeaderV1
	V2 Kind = 2 // HMAC-SHA256, HeaderV2
)

// String returns "v1" or "v2".
func (k Kind) String() string {
	switch k {
	case V1:
		return "v1"
	case V2:
		return "v2"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Match says which signature was right, under which of the Verifier's secrets.
type Match struct {
	Kind   Kind
	Secret int // index of the secret
}

// Verifier checks signatures against the secrets of one source. It may be used concurrently.
type Verifier struct {
	acceptV1 bool
	v1, v2   []macPool // one per secret
}

// NewVerifier makes a Verifier of one or more secrets, none of them empty: an empty key would let anybody sign. Secrets
// are used as they are, white space included. With acceptV1 a V1 signature is accepted where no V2 signature came.
func NewVerifier(secrets []string, acceptV1 bool) (*Verifier, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no secret")
	}
	v := &Verifier{acceptV1: acceptV1, v1: make([]macPool, len(secrets)), v2: make([]macPool, len(secrets))}
	for i, s := range secrets {
		if s == "" {
			return nil, fmt.Errorf("secret %d is empty", i+1)
		}
		v.v1[i].init(sha1.New, s)
		v.v2[i].init(sha256.New, s)
	}
	return v, nil
}

// Verify checks the signatures of a body, given all values of both headers as http.Header has them.
//
// A header with more than one value is wrong: the service sends one, and readers would differ on which counts. If there is a
// V2 signature, it alone decides; V1 is looked at only when V2 is absent and the Verifier accepts V1. A present but
// empty header is not absent. Hex digits must be lower-case, as the service sends them, so that a signature has one form.
//
// All secrets are always tried, and compared in constant time. Only what the sender knows anyway (how many values, their
// length, whether they are hex) makes a refusal faster.
func (v *Verifier) Verify(body []byte, v1, v2 []string) (Match, bool) {
	if len(v1) > 1 || len(v2) > 1 {
		return Match{}, false
	}
	switch {
	case len(v2) == 1:
		i, ok := match(v.v2, body, v2[0], sha256.Size)
		return Match{Kind: V2, Secret: i}, ok
	case len(v1) == 1 && v.acceptV1:
		i, ok := match(v.v1, body, v1[0], sha1.Size)
		return Match{Kind: V1, Secret: i}, ok
	}
	return Match{}, false
}

// match returns the index of the secret under which value is the signature of body.
func match(macs []macPool, body []byte, value string, size int) (int, bool) {
	var given [sha256.Size]byte
	if !decodeHex(given[:size], value) {
		return 0, false
	}
	found := -1
	for i := range macs {
		equal := macs[i].equal(body, given[:size])
		found = subtle.ConstantTimeSelect(equal, i, found)
	}
	return max(found, 0), found >= 0
}

// decodeHex decodes lower-case hex of exactly the length of dst.
func decodeHex(dst []byte, s string) bool {
	if len(s) != hex.EncodedLen(len(dst)) {
		return false
	}
	for i := range dst {
		hi, ok1 := nibble(s[2*i])
		lo, ok2 := nibble(s[2*i+1])
		if !ok1 || !ok2 {
			return false
		}
		dst[i] = hi<<4 | lo
	}
	return true
}

func nibble(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	}
	return 0, false
}

// macPool holds HMAC states of one secret. A state that was used once restarts from its keyed blocks, which saves
// two of the hash's blocks and all allocations.
type macPool struct{ pool sync.Pool }

type mac struct {
	hash hash.Hash
	sum  [sha256.Size]byte
}

func (p *macPool) init(h func() hash.Hash, secret string) {
	key := []byte(secret)
	p.pool.New = func() any { return &mac{hash: hmac.New(h, key)} }
}

func (p *macPool) equal(body, given []byte) int {
	m := p.pool.Get().(*mac)
	defer p.pool.Put(m)
	m.hash.Reset()
	m.hash.Write(body)
	return subtle.ConstantTimeCompare(m.hash.Sum(m.sum[:0]), given)
}
