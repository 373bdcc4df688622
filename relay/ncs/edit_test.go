package ncs_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// without is the value of a member to be removed.
const without = "<without>"

// edit sets a member of a body ("payload.sid") to a JSON value, or removes it. It writes the members in alphabetical order.
func edit(t testing.TB, body []byte, path, value string) []byte {
	t.Helper()
	root := decode(t, body)
	object := root
	names := strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		object = object[name].(map[string]any)
	}
	last := names[len(names)-1]
	if value == without {
		delete(object, last)
	} else {
		object[last] = json.RawMessage(value)
	}
	b, err := json.Marshal(root)
	require.NoError(t, err)
	return b
}

func decode(t testing.TB, body []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber() // ids are not floats
	var root map[string]any
	require.NoError(t, d.Decode(&root))
	return root
}

// rewritten returns bodies that differ in bytes only: other order of members, white space, escapes.
func rewritten(t testing.TB, body []byte) map[string][]byte {
	t.Helper()
	root := decode(t, body)
	sorted, err := json.Marshal(root)
	require.NoError(t, err)
	pretty, err := json.MarshalIndent(root, "\t", "  ")
	require.NoError(t, err)
	return map[string][]byte{
		"sorted":   sorted,
		"reversed": reversed(t, root),
		"pretty":   append(append([]byte("\r\n "), pretty...), '\n'),
		"escaped":  escaped(body),
	}
}

// reversed writes the members of every object in reverse alphabetical order.
func reversed(t testing.TB, v any) []byte {
	t.Helper()
	object, ok := v.(map[string]any)
	if !ok {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return b
	}
	var out []byte
	sorted := make([]string, 0, len(object))
	for name := range object {
		sorted = append(sorted, name)
	}
	// Insertion by hand keeps this test from sharing an order with the code under test.
	for i := range sorted {
		for j := i; j > 0 && sorted[j] > sorted[j-1]; j-- {
			sorted[j], sorted[j-1] = sorted[j-1], sorted[j]
		}
	}
	for i, name := range sorted {
		if i > 0 {
			out = append(out, ',')
		}
		quoted, err := json.Marshal(name)
		require.NoError(t, err)
		out = append(append(append(out, quoted...), ':'), reversed(t, object[name])...)
	}
	return append(append([]byte{'{'}, out...), '}')
}

// escaped writes every letter and digit within strings, names too, as \u00XX.
func escaped(body []byte) []byte {
	const digits = "0123456789abcdef"
	var out []byte
	inString := false
	for i := 0; i < len(body); i++ {
		c := body[i]
		switch {
		case c == '"':
			inString = !inString
			out = append(out, c)
		case inString && c == '\\':
			out = append(out, c, body[i+1])
			i++
		case inString && c < 0x80:
			out = append(out, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			out = append(out, c)
		}
	}
	return out
}
