package ncs_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

func TestDiagnose(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-value"
	body := sample(t, "3-31-uploaded-individual.json")
	var pretty bytes.Buffer
	require.NoError(t, json.Indent(&pretty, body, "", "  "))
	escaped := bytes.ReplaceAll(body, []byte("uploaded"), []byte(`uploade\u0064`))
	v1, v2 := ncs.SignV1(secret, body), ncs.SignV2(secret, body)
	raw, err := hex.DecodeString(v2)
	require.NoError(t, err)

	for _, test := range []struct {
		name     string
		body     []byte
		secret   string
		v1, v2   string
		findings []string // a piece of each; none = right
	}{
		{"right", body, secret, v1, v2, nil},
		{"only V1", body, secret, v1, "", nil},
		{"only V2", body, secret, "", v2, nil},
		{"no secret", body, "", v1, v2, []string{"secret is empty"}},
		{"no signature", body, secret, "", "", []string{"No signature was given"}},
		{"line end added", append(bytes.Clone(body), '\n'), secret, "", v2, []string{"without the line end at its end"}},
		{"CRLF added", append(bytes.Clone(body), '\r', '\n'), secret, "", v2, []string{"without the line end at its end"}},
		{"line end cut off", body, secret, "", ncs.SignV2(secret, append(bytes.Clone(body), '\n')), []string{"with a line end at its end"}},
		{"byte order mark", append([]byte("\xef\xbb\xbf"), body...), secret, "", v2, []string{"byte order mark"}},
		{
			"CRLF within", bytes.ReplaceAll(pretty.Bytes(), []byte("\n"), []byte("\r\n")), secret, "", ncs.SignV2(secret, pretty.Bytes()),
			[]string{"LF instead of CRLF"},
		},
		{
			"LF within", pretty.Bytes(), secret, "", ncs.SignV2(secret, bytes.ReplaceAll(pretty.Bytes(), []byte("\n"), []byte("\r\n"))),
			[]string{"CRLF instead of LF"},
		},
		{"pretty-printed", pretty.Bytes(), secret, "", v2, []string{"without white space: the body was pretty-printed"}},
		{"escaped anew", escaped, secret, "", v2, []string{"without needless escapes"}},
		{"line end of the secret's file", body, secret + "\n", "", v2, []string{"secret has white space around it"}},
		{"quoted secret", body, `"` + secret + `"`, "", v2, []string{"quotes around it"}},
		{"signed with an untrimmed secret", body, secret, "", ncs.SignV2(secret+"\n", body), []string{"secret that has a line end"}},
		{"secret and body", pretty.Bytes(), " " + secret, v1, "", []string{"secret has white space", "pretty-printed"}},
		{"V1 given as V2", body, secret, "", v1, []string{"exchanged"}},
		{"V2 given as V1", body, secret, v2, "", []string{"exchanged"}},
		{"exchanged", body, secret, v2, v1, []string{"Agora-Signature has the length", "Agora-Signature-V2 has the length"}},
		{"upper case", body, secret, "", strings.ToUpper(v2), []string{"upper-case"}},
		{"base64", body, secret, "", base64.StdEncoding.EncodeToString(raw), []string{"is base64"}},
		{"base64 without padding, for addresses", body, secret, "", base64.RawURLEncoding.EncodeToString(raw), []string{"is base64"}},
		{"prefix", body, secret, "", "sha256=" + v2, []string{`"sha256=" in front`}},
		{"white space around the signature", body, secret, "", v2 + "\n", []string{"white space around its value"}},
		{"no signature at all", body, secret, "", "Bearer xyz", []string{"no signature: want 64"}},
		{"cut off", body, secret, v1[:39], "", []string{"no signature: want 40"}},
		{"another secret", body, secret, "", ncs.SignV2("another", body), []string{"another secret"}},
		{
			"another secret and odd input", append(append([]byte("\xef\xbb\xbf"), pretty.Bytes()...), '\r', '\n'), " " + secret, "", ncs.SignV2("another", body),
			[]string{"another secret", "secret has white space", "starts with a byte order mark", "ends with a line end", "CRLF", "white space between"},
		},
		{"cut body", body[:100], secret, "", v2, []string{"another secret", "not JSON"}},
		{"empty body", nil, secret, "", v2, []string{"another secret", "body is empty"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			given := bytes.Clone(test.body)
			findings := ncs.Diagnose(test.body, test.secret, test.v1, test.v2)
			require.Equal(t, given, test.body, "the body was changed")
			require.Len(t, findings, len(test.findings), "%q", findings)
			for i, want := range test.findings {
				require.Contains(t, findings[i], want)
			}
			require.NotContains(t, strings.Join(findings, " "), secret)
		})
	}
}

// Whatever Diagnose is given, it finds nothing exactly where Verify accepts.
func FuzzDiagnose(f *testing.F) {
	f.Add([]byte("{}"), "secret", ncs.SignV2("secret", []byte("{}")))
	f.Add([]byte("{ }"), "secret\n", ncs.SignV2("secret", []byte("{}")))
	f.Add([]byte(""), "a", "sha256=")
	f.Fuzz(func(t *testing.T, body []byte, secret, value string) {
		if secret == "" || value == "" {
			return
		}
		v, err := ncs.NewVerifier([]string{secret}, false)
		require.NoError(t, err)
		_, ok := v.Verify(body, nil, []string{value})
		require.Equal(t, ok, len(ncs.Diagnose(body, secret, "", value)) == 0)
	})
}
