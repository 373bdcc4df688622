package relay

import (
	"path"
	"strconv"
	"strings"
	"unicode"
)

// Unroutable is the reserved sink name under which quarantined bodies are dead letters.
const Unroutable = "unroutable"

// NameRule says in words what ValidName accepts.
const NameRule = "use up to 63 of a-z 0-9 _ . - and begin with a letter or digit"

// ValidName reports whether a source or sink may be called name. Names are metric labels, header values and arguments on
// the command line.
func ValidName(name string) bool {
	if len(name) == 0 || len(name) > 63 || strings.ContainsRune("_.-", rune(name[0])) {
		return false
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-") == ""
}

// IsPort reports whether an address that somebody wrote is nothing but a port.
func IsPort(address string) bool {
	_, err := strconv.ParseUint(address, 10, 16)
	return err == nil
}

// PathRule says in words what ValidPath accepts.
const PathRule = "begin with /, and use no query, percent sign, space, // or .. and no / at the end"

// ValidPath reports whether the ingress can serve p, which is compared exactly with the decoded path of a call.
func ValidPath(p string) bool {
	unusual := func(r rune) bool { return strings.ContainsRune(`?#%\`, r) || unicode.IsSpace(r) || !unicode.IsPrint(r) }
	return strings.HasPrefix(p, "/") && path.Clean(p) == p && !strings.ContainsFunc(p, unusual)
}
