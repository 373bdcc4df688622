package ncs

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// scanned are bodies with everything that the scanner decides on by itself, or must not.
func scanned(t testing.TB) [][]byte {
	var all [][]byte
	for _, s := range Samples() {
		all = append(all, s.Notification.body)
	}
	names, err := filepath.Glob("testdata/not-ncs/*.json")
	require.NoError(t, err)
	for _, name := range names {
		body, err := os.ReadFile(name)
		require.NoError(t, err)
		all = append(all, body)
	}
	for _, body := range []string{
		`{}`, ` { } `, `{"a":1,"a":2}`, `{"sid":"a","sid":"b"}`, `{"\u0073id":"a"}`, `{"payload":{"sid":"\ud83d"}}`, `{"payload":{"sid":"\u00e9\"\\\/\b\f\n\r\t\u00E9"}}`,
		"{\"sid\":\"\xff\"}", "{\"\xff\":1}", `{"a":[-0,0.5,1e9,1E-9,-12.25e+3,true,false,null,"",[],{},[[{"b":[1]}]]]}`, `{"payload":{"player":{"id":"x","channelName":null},"rtcInfo":[]}}`,
		`{"payload":null}`, `{"payload":[{"sid":1}]}`, "\xef\xbb\xbf{}", `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":1e}`, `{"a":+1}`, `{"a":tru}`, `{"a":"` + "\t" + `"}`, `{"a":"\x"}`, `{"a":"\u12"}`,
		`{"a":1,}`, `{"a":[1,]}`, `{"a" 1}`, `{"a":}`, `{} {}`, `{}x`, `{"a":"\ud83d\ude00"}`, `{"a":"\u0000"}`, "{\"a\":\"\x7f\"}", `{"":1,"":2}`,
	} {
		all = append(all, []byte(body))
	}
	for _, depth := range []int{scanDepth - 2, scanDepth - 1, scanDepth, scanDepth + 1} {
		all = append(all, append(append([]byte(`{"a":`), append(bytes.Repeat([]byte("["), depth), bytes.Repeat([]byte("]"), depth)...)...), '}'))
	}
	return all
}

// agrees checks that the decoder finds in a body what the scanner has found, if it has.
func agrees(t testing.TB, body []byte) (scanned bool) {
	fast, slow := &Notification{body: body}, &Notification{body: body}
	if !fast.scan() {
		if fast.spans != slow.spans { // require itself takes long
			require.Fail(t, "fields are left", "%q", body)
		}
		return false
	}
	w := walkers.Get().(*walker)
	defer w.release()
	if err := w.walk(slow); err != nil || slow.spans != fast.spans {
		require.NoError(t, err, "%q", body)
		require.Equal(t, slow.spans, fast.spans, "%q", body)
	}
	return true
}

func TestScannerAgreesWithTheDecoder(t *testing.T) {
	t.Parallel()
	for _, s := range Samples() {
		require.True(t, agrees(t, s.Notification.body), "the samples are ordinary: %s", s.Notification.body)
	}
	instead := []byte("\"\\{}[],:0-.eEtu \n\x00\x1f\x7f\xff")
	for _, body := range scanned(t) {
		agrees(t, body)
		for i := range min(len(body), 120) {
			agrees(t, body[:i])
			for _, c := range instead {
				changed := bytes.Clone(body)
				changed[i] = c
				agrees(t, changed)
			}
		}
	}
}

func TestScanningAllocatesNothing(t *testing.T) {
	n := &Notification{body: Samples()[0].Notification.body}
	require.Zero(t, testing.AllocsPerRun(100, func() { n.spans = [fieldCount]span{}; n.scan() }))
}

func FuzzScan(f *testing.F) {
	for _, body := range scanned(f) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) { agrees(t, body) })
}
