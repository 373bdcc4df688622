package config

import (
	"regexp"
	"strconv"
	"strings"
)

// hidden stands for a secret wherever one would be printed.
const hidden = "<secret>"

// telling is the length from which a part of a value is thought to tell something about it, and from which a value is
// looked for everywhere. Shorter ones would be found in ordinary words.
const telling = 6

// words finds quoted texts and the words between them.
var words = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[^\s"]+`)

// redact takes secrets and the values of variables out of the report. The checks of packages print what is wrong, or a part
// of it, and do not know that it came from a variable, where somebody may keep a password or a URL with one.
func (d *decoder) redact() {
	for i := range d.report.Problems {
		p := &d.report.Problems[i]
		p.Message, p.Hint = d.withoutWhole(p.Message), d.withoutWhole(p.Hint)
		for _, v := range d.used[p.Path] {
			if v.written { // whoever reads the file sees it
				continue
			}
			p.Message, p.Hint = v.withoutParts(p.Message), v.withoutParts(p.Hint)
		}
	}
}

// withoutParts takes out of a text about a value with v in it what comes from v: words with a telling part of it, quoted
// texts that are a part of it, and the first number, which by convention is the value, when others are limits.
func (v variable) withoutParts(text string) string {
	value, shown, numbers := strings.ToLower(v.value), "${"+v.name+"}", 0
	return words.ReplaceAllStringFunc(text, func(word string) string {
		if isNumber(word) {
			numbers++
		}
		lower := strings.ToLower(strings.ReplaceAll(word, shown, "")) // the name may have a part in common, too
		inside, err := strconv.Unquote(lower)
		switch {
		case strings.HasPrefix(word, "${"), word == "http://", word == "https://":
			return word
		case err == nil && (shares(value, inside) || strings.Contains(value, inside)):
			return strconv.Quote(shown)
		case lower == value, shares(value, lower), isNumber(word) && numbers == 1 && isNumber(value):
			return shown
		}
		return word
	})
}

// hide keeps a value out of every report, also where it is quoted.
func (d *decoder) hide(value, shown string) {
	if len(value) >= telling {
		d.secrets[value] = shown
		d.secrets[strings.Trim(strconv.Quote(value), `"`)] = shown
	}
}

// withoutWhole takes every secret and every value of a variable out of a text, whatever it is about.
func (d *decoder) withoutWhole(text string) string {
	for value, shown := range d.secrets {
		text = strings.ReplaceAll(text, value, shown)
	}
	return text
}

// shares tells whether two texts have a telling part in common.
func shares(a, b string) bool {
	for i := 0; i+telling <= len(b); i++ {
		if strings.Contains(a, b[i:i+telling]) {
			return true
		}
	}
	return false
}

func isNumber(word string) bool {
	word = strings.TrimPrefix(word, "-")
	return word != "" && word[0] >= '0' && word[0] <= '9'
}
