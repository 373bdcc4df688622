package ncs

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Diagnose says why the signatures of a body are not right, in sentences for people; no findings = each given signature is
// right as Verify sees it. v1 and v2 are the values of the headers; "" = not given. The sentences quote neither the secret nor the body.
//
// It tries what usually goes wrong on the way: a body that was saved with another line end, pretty-printed or written anew,
// a secret with white space or quotes around it, the headers exchanged, another encoding of the signature.
func Diagnose(body []byte, secret, v1, v2 string) []string {
	if secret == "" {
		return []string{"The secret is empty: no signature can be checked without it."}
	}
	if v1 == "" && v2 == "" {
		return []string{"No signature was given: neither " + HeaderV1 + " nor " + HeaderV2 + " has a value."}
	}
	var findings []string
	for _, s := range []signatureValue{{V1, v1}, {V2, v2}} {
		if s.value != "" {
			findings = append(findings, s.diagnose(body, secret)...)
		}
	}
	return findings
}

type signatureValue struct {
	kind  Kind
	value string
}

func (s signatureValue) header() string {
	if s.kind == V1 {
		return HeaderV1
	}
	return HeaderV2
}

func (s signatureValue) diagnose(body []byte, secret string) []string {
	if s.right(body, secret) {
		return nil
	}
	sum, findings := s.read()
	if sum == nil {
		return findings
	}
	if len(sum) != s.kind.size() {
		findings = append(findings, fmt.Sprintf("%s has the length of %s: the values of the two headers seem to be exchanged.",
			s.header(), signatureValue{kind: s.kind.other()}.header()))
	}
	changes, found := explain(sum, body, secret)
	if !found {
		return append(append(findings, fmt.Sprintf("%s matches neither the body under this secret nor any usual alteration of them: it is another "+
			"secret (each product of each project has its own), or the body was changed on its way.", s.header())), suspicions(body, secret)...)
	}
	return append(findings, changes...)
}

// right tells what Verify would say.
func (s signatureValue) right(body []byte, secret string) bool {
	v, err := NewVerifier([]string{secret}, true)
	if err != nil {
		return false
	}
	v1, v2 := []string{s.value}, []string(nil)
	if s.kind == V2 {
		v1, v2 = v2, v1
	}
	_, ok := v.Verify(body, v1, v2)
	return ok
}

func (k Kind) size() int {
	if k == V1 {
		return sha1.Size
	}
	return sha256.Size
}

func (k Kind) other() Kind { return V1 + V2 - k }

// read decodes the value in whatever form it comes; nil = in none.
func (s signatureValue) read() (sum []byte, findings []string) {
	value := strings.TrimSpace(s.value)
	if value != s.value {
		findings = append(findings, s.header()+" has white space around its value.")
	}
	if algorithm, rest, ok := strings.Cut(value, "="); ok && rest != "" && len(algorithm) <= len("hmac-sha256") {
		value = rest
		findings = append(findings, fmt.Sprintf("%s has %q in front of its value; the service sends the bare hex digits.", s.header(), algorithm+"="))
	}
	if b, err := hex.DecodeString(value); err == nil && isSum(b) {
		if value != strings.ToLower(value) {
			findings = append(findings, s.header()+" has upper-case hex digits; the service sends lower-case ones, and only those are accepted.")
		}
		return b, findings
	}
	for _, e := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if b, err := e.DecodeString(value); err == nil && isSum(b) {
			return b, append(findings, s.header()+" is base64; the service sends hex.")
		}
	}
	return nil, append(findings, fmt.Sprintf("%s is no signature: want %d lower-case hex digits, got %d characters.",
		s.header(), hex.EncodedLen(s.kind.size()), len(value)))
}

func isSum(b []byte) bool { return len(b) == sha1.Size || len(b) == sha256.Size }

// alteration is something that happens to a body or a secret between signing and checking, undone.
type alteration struct {
	finding string // "" = none
	undo    func([]byte) ([]byte, bool)
}

func unaltered(b []byte) ([]byte, bool) { return b, true }

var bodyAlterations = []alteration{
	{"", unaltered},
	{"The signature is that of the body without the line end at its end: something, often an editor or echo, has added one.", func(b []byte) ([]byte, bool) {
		t := bytes.TrimRight(b, "\r\n")
		return t, len(t) < len(b)
	}},
	{"The signature is that of the body with a line end at its end: something has cut it off.", func(b []byte) ([]byte, bool) {
		return append(bytes.Clone(b), '\n'), true
	}},
	{"The signature is that of the body without the byte order mark at its start.", func(b []byte) ([]byte, bool) {
		return bytes.CutPrefix(b, byteOrderMark)
	}},
	{"The signature is that of the body with line ends of LF instead of CRLF.", func(b []byte) ([]byte, bool) {
		return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), bytes.Contains(b, []byte("\r\n"))
	}},
	{"The signature is that of the body with line ends of CRLF instead of LF.", func(b []byte) ([]byte, bool) {
		lf := bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
		return bytes.ReplaceAll(lf, []byte("\n"), []byte("\r\n")), bytes.Contains(lf, []byte("\n"))
	}},
	{"The signature is that of the same JSON without white space: the body was pretty-printed or written anew. Sign and check the raw bytes.", compact},
	{"The signature is that of the same JSON without white space and without needless escapes: the body was written anew. Sign and check the raw bytes.", unescaped},
}

var secretAlterations = []alteration{
	{"", unaltered},
	{"The secret has white space around it (often the line end of its file); the signature was made without.", func(b []byte) ([]byte, bool) {
		t := bytes.TrimSpace(b)
		return t, len(t) > 0 && len(t) < len(b)
	}},
	{"The secret has quotes around it; the signature was made without.", func(b []byte) ([]byte, bool) {
		t := bytes.Trim(bytes.TrimSpace(b), `"'`)
		return t, len(t) > 0 && len(t) <= len(b)-2
	}},
	{"The signature was made with a secret that has a line end: whoever signs has read it from a file and did not trim it.", func(b []byte) ([]byte, bool) {
		return append(bytes.Clone(b), '\n'), true
	}},
}

var byteOrderMark = []byte("\xef\xbb\xbf")

func compact(b []byte) ([]byte, bool) {
	return reformat(b, jsontext.PreserveRawStrings(true))
}

func unescaped(b []byte) ([]byte, bool) { return reformat(b) }

func reformat(b []byte, options ...jsontext.Options) ([]byte, bool) {
	b = bytes.TrimPrefix(b, byteOrderMark)
	v, err := jsontext.AppendFormat(nil, b, append(options, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))...)
	return v, err == nil && !bytes.Equal(v, b)
}

// explain finds the alterations of body and secret under which sum is right.
func explain(sum, body []byte, secret string) (findings []string, found bool) {
	h := sha256.New
	if len(sum) == sha1.Size {
		h = sha1.New
	}
	for _, sa := range secretAlterations {
		key, ok := sa.undo([]byte(secret))
		if !ok {
			continue
		}
		for _, ba := range bodyAlterations {
			b, ok := ba.undo(body)
			if !ok || !isMAC(h, key, b, sum) {
				continue
			}
			for _, f := range []string{sa.finding, ba.finding} {
				if f != "" {
					findings = append(findings, f)
				}
			}
			return findings, true
		}
	}
	return nil, false
}

func isMAC(h func() hash.Hash, key, body, sum []byte) bool {
	mac := hmac.New(h, key)
	mac.Write(body)
	return hmac.Equal(mac.Sum(nil), sum)
}

// suspicions lists what is unusual about a body and a secret though undoing it does not help.
func suspicions(body []byte, secret string) []string {
	var findings []string
	if len(body) == 0 {
		findings = append(findings, "The body is empty.")
	}
	if strings.TrimSpace(secret) != secret {
		findings = append(findings, "The secret has white space around it.")
	}
	if bytes.HasPrefix(body, byteOrderMark) {
		findings = append(findings, "The body starts with a byte order mark.")
	}
	if bytes.HasSuffix(body, []byte("\n")) {
		findings = append(findings, "The body ends with a line end; the service sends none.")
	}
	if bytes.Contains(body, []byte("\r\n")) {
		findings = append(findings, "The body has CRLF line ends.")
	}
	if _, ok := compact(body); ok {
		findings = append(findings, "The body has white space between its JSON tokens; the service sends compact JSON.")
	}
	if len(body) > 0 && !jsontext.Value(bytes.TrimPrefix(body, byteOrderMark)).IsValid(jsontext.AllowDuplicateNames(true)) {
		findings = append(findings, "The body is not JSON: part of it may be missing.")
	}
	return findings
}
