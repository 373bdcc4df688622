package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// hidden stands for a secret wherever one would be printed.
const hidden = "<secret>"

// telling is the length from which a part of a value is thought to tell something about it, and from which a value is
// looked for in other values.
const telling = 6

// shownAt returns what a report about path may show of a value. The checks of packages do not know that a value, of which they may
// have a part only, came from a variable, where somebody may keep a password or a URL with one. Nothing but values comes here, so
// no word of a report is ever taken for one.
func (d *decoder) shownAt(path string) func(any) any {
	return func(value any) any {
		v := reflect.ValueOf(value)
		err, isError := value.(error)
		switch {
		case isError && errors.As(err, new(syscall.Errno)):
			return value
		case isError: // in which words and values are one
			if text := err.Error(); d.shown(path, text) != text {
				return asShown("is wrong in a way that is not shown here, because the words would repeat a variable's value or a secret")
			}
			return value
		case v.CanInt():
			return d.shownNumber(path, value, v.Int())
		case v.Kind() == reflect.String:
			return asShown(d.shown(path, v.String()))
		}
		return value
	}
}

// shown returns a text without what comes from the environment or a secret.
func (d *decoder) shown(path, text string) string {
	at, own := d.foreign[path]
	switch {
	case own && text == at.value:
		return at.shown
	case own && text == d.absolute(at.value):
		before, _ := strings.CutSuffix(text, filepath.Clean(at.value))
		if before == text {
			before = ""
		}
		return before + at.shown
	}
	text = d.mask(text)
	for _, v := range at.used {
		if v.written || v.value == "" {
			continue
		}
		rest := strings.ReplaceAll(text, v.reference(), "\x00") // the name may have a part in common, too
		rest = strings.ReplaceAll(rest, v.value, "\x00")
		if part, value := strings.ToLower(rest), strings.ToLower(v.value); shares(value, part) || part != "" && strings.Contains(value, part) {
			return v.reference()
		}
		text = strings.ReplaceAll(rest, "\x00", v.reference())
	}
	return text
}

// shownNumber hides a number that stands in a variable: the value in question, or that of a setting beside it.
func (d *decoder) shownNumber(path string, value any, number int64) any {
	for p, n := range d.numbers {
		if n == number && parent(p) == parent(path) {
			return asShown(d.foreign[p].shown)
		}
	}
	return value
}

// asShown is printed as it is by every verb but %q.
type asShown string

func (s asShown) Format(f fmt.State, verb rune) {
	text := string(s)
	if verb == 'q' {
		text = strconv.Quote(text)
	}
	fmt.Fprint(f, text)
}

// hide keeps a value out of every report, also where it is quoted.
func (d *decoder) hide(value, shown string) {
	if len(value) >= telling {
		d.secrets[value], d.masks = shown, nil
	}
}

// mask takes secrets and the values of variables out of a value, wherever it stands.
func (d *decoder) mask(text string) string {
	if d.masks == nil {
		longestFirst := func(a, b string) int { return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b)) } // one may be the beginning of another
		var pairs []string
		for _, value := range slices.SortedFunc(maps.Keys(d.secrets), longestFirst) {
			pairs = append(pairs, value, d.secrets[value])
		}
		d.masks = strings.NewReplacer(pairs...)
	}
	return d.masks.Replace(text)
}

// shares reports whether two texts have a telling part in common.
func shares(a, b string) bool {
	for i := 0; i+telling <= len(b); i++ {
		if strings.Contains(a, b[i:i+telling]) {
			return true
		}
	}
	return false
}
