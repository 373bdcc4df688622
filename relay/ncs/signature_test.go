package ncs_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

// vectors were computed by OpenSSL: openssl dgst -sha256 -hmac SECRET -hex < FILE, and the same with -sha1.
var vectors = []struct{ file, secret, v1, v2 string }{
	{
		"3-31-uploaded-individual.json", "the first secret",
		"1bf94e6cd66f13d4076d887a9a2b6b35df9f64a7",
		"99e52f771cec7801941493ac03e060fec1cdf9a89571080e281bc427ee90f468",
	},
	{
		"3-31-uploaded-individual.json", "geheim-ü",
		"6c54672859d4cc56cf94a12b65e1c7fc9cb265a9",
		"54e42f019ce539e7301d6e875021ecc2cbf06bd79f1862b1e99c4c2522a72a49",
	},
	{
		"1-103-broadcaster_join_channel.json", "the first secret",
		"755ad2a1d75185b898e69a70c841168242b53cd2",
		"ac7420ede2221a90c5778344ddba6a30674112d97c50b3f17d3cd5ef6250f7ca",
	},
}

func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("samples/" + name)
	require.NoError(t, err)
	return b
}

func TestSign(t *testing.T) {
	t.Parallel()
	for _, v := range vectors {
		require.Equal(t, v.v1, ncs.SignV1(v.secret, sample(t, v.file)))
		require.Equal(t, v.v2, ncs.SignV2(v.secret, sample(t, v.file)))
	}
	// Of an empty body, and of one that is not UTF-8; also by OpenSSL.
	require.Equal(t, "acaff6c9094f3553f9993908c1dd701cf9f42ea0c6b627decf72b23a98a5c17b", ncs.SignV2("the first secret", nil))
	require.Equal(t, "aa489437b25c6a50e3bf3b4a51602f2f56ab65aa06fa9de3342b59a61165ddd5",
		ncs.SignV2("the first secret", []byte("{\"eventType\":1}\xff\x00")))
}

func TestNewVerifierRefusesSecretsThatProtectNothing(t *testing.T) {
	t.Parallel()
	for _, secrets := range [][]string{nil, {}, {""}, {"one", ""}} {
		_, err := ncs.NewVerifier(secrets, true)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "one")
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	body := sample(t, vectors[0].file)
	v1, v2 := vectors[0].v1, vectors[0].v2
	other1, other2 := vectors[1].v1, vectors[1].v2
	wrong1, wrong2 := strings.Repeat("0", 40), strings.Repeat("0", 64)
	first := func(k ncs.Kind) *ncs.Match { return &ncs.Match{Kind: k, Secret: 0} }
	second := func(k ncs.Kind) *ncs.Match { return &ncs.Match{Kind: k, Secret: 1} }

	for _, test := range []struct {
		name     string
		v1, v2   []string
		only2    *ncs.Match // with the default rule; nil = refused
		acceptV1 *ncs.Match
	}{
		{"both right", []string{v1}, []string{v2}, first(ncs.V2), first(ncs.V2)},
		{"both right under the second secret", []string{other1}, []string{other2}, second(ncs.V2), second(ncs.V2)},
		{"V2 alone", nil, []string{v2}, first(ncs.V2), first(ncs.V2)},
		{"V1 alone", []string{v1}, nil, nil, first(ncs.V1)},
		{"V1 alone under the second secret", []string{other1}, nil, nil, second(ncs.V1)},
		{"V1 right, V2 wrong", []string{v1}, []string{wrong2}, nil, nil},
		{"V1 right, V2 empty", []string{v1}, []string{""}, nil, nil},
		{"V1 wrong, V2 right", []string{wrong1}, []string{v2}, first(ncs.V2), first(ncs.V2)},
		{"V1 wrong", []string{wrong1}, nil, nil, nil},
		{"none", nil, nil, nil, nil},
		{"empty", []string{""}, []string{""}, nil, nil},
		{"V2 twice", nil, []string{v2, v2}, nil, nil},
		{"V1 twice", []string{v1, v1}, nil, nil, nil},
		{"V1 twice beside a right V2", []string{v1, wrong1}, []string{v2}, nil, nil},
		{"two values in one", nil, []string{v2 + ", " + v2}, nil, nil},
		{"exchanged", []string{v2}, []string{v1}, nil, nil},
		{"upper case", nil, []string{strings.ToUpper(v2)}, nil, nil},
		{"one digit upper case", nil, []string{strings.Replace(v2, "e", "E", 1)}, nil, nil},
		{"too short", nil, []string{v2[:63]}, nil, nil},
		{"too long", nil, []string{v2 + "0"}, nil, nil},
		{"not hex", nil, []string{"g" + v2[1:]}, nil, nil},
		{"white space", nil, []string{v2[:63] + " "}, nil, nil},
		{"prefix", nil, []string{"sha256=" + v2}, nil, nil},
		{"first digit wrong", nil, []string{"8" + v2[1:]}, nil, nil},
		{"last digit wrong", nil, []string{v2[:63] + "9"}, nil, nil},
	} {
		for accept, want := range map[bool]*ncs.Match{false: test.only2, true: test.acceptV1} {
			t.Run(fmt.Sprintf("%s/acceptV1=%t", test.name, accept), func(t *testing.T) {
				t.Parallel()
				v, err := ncs.NewVerifier([]string{vectors[0].secret, vectors[1].secret}, accept)
				require.NoError(t, err)
				got, ok := v.Verify(body, test.v1, test.v2)
				require.Equal(t, want != nil, ok)
				if want != nil {
					require.Equal(t, *want, got)
				}
			})
		}
	}
}

func TestVerifyIsOfTheBody(t *testing.T) {
	t.Parallel()
	v, err := ncs.NewVerifier([]string{vectors[0].secret}, false)
	require.NoError(t, err)
	body := sample(t, vectors[0].file)
	// Twice, as the second time the state comes from the pool.
	for range 2 {
		_, ok := v.Verify(body, nil, []string{vectors[0].v2})
		require.True(t, ok)
		_, ok = v.Verify(append(body, '\n'), nil, []string{vectors[0].v2})
		require.False(t, ok)
		_, ok = v.Verify(nil, nil, []string{vectors[0].v2})
		require.False(t, ok)
	}
}

func TestVerifyConcurrently(t *testing.T) {
	t.Parallel()
	v, err := ncs.NewVerifier([]string{"old", "new"}, false)
	require.NoError(t, err)
	done := make(chan bool)
	const workers = 8
	for w := range workers {
		go func() {
			ok := true
			for i := range 200 {
				body := fmt.Appendf(nil, "body %d of %d", i, w)
				_, right := v.Verify(body, nil, []string{ncs.SignV2("new", body)})
				_, wrong := v.Verify(body, nil, []string{ncs.SignV2("newer", body)})
				ok = ok && right && !wrong
			}
			done <- ok
		}()
	}
	for range workers {
		require.True(t, <-done)
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte("{}"), "", "")
	f.Add([]byte("{}"), vectors[0].v1, vectors[0].v2)
	f.Add([]byte("{}"), ncs.SignV1("secret", []byte("{}")), ncs.SignV2("secret", []byte("{}")))
	v, err := ncs.NewVerifier([]string{"other", "secret"}, true)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte, v1, v2 string) {
		_, ok := v.Verify(body, []string{v1}, []string{v2})
		right := v2 == ncs.SignV2("secret", body) || v2 == ncs.SignV2("other", body)
		require.Equal(t, right, ok)
		m, ok := v.Verify(body, []string{v1}, nil)
		right = v1 == ncs.SignV1("secret", body) || v1 == ncs.SignV1("other", body)
		require.Equal(t, right, ok)
		if ok {
			require.Equal(t, ncs.V1, m.Kind)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	body := sample(b, "3-31-uploaded-composite-mp4.json")
	for _, n := range []int{1, 2} {
		b.Run(fmt.Sprintf("%dB/%dsecrets", len(body), n), func(b *testing.B) {
			secrets := []string{"the right secret", "another secret"}[:n]
			v, err := ncs.NewVerifier(secrets, false)
			require.NoError(b, err)
			header := []string{ncs.SignV2(secrets[0], body)}
			b.ReportAllocs()
			for b.Loop() {
				if _, ok := v.Verify(body, nil, header); !ok {
					b.Fatal("refused")
				}
			}
		})
	}
}
