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

// redact takes the values of variables out of a message about the value at path. The checks of packages print what is
// wrong, or a part of it, and do not know that it came from a variable, where somebody may keep a password or a URL
// with one. Words that have a telling part of such a value in them are replaced, quoted texts at any length, and the
// first number: by convention it is the value, and others are limits.
func (d *decoder) redact(path, message string) string {
	message = d.redactWhole(message)
	for _, v := range d.used[path] {
		value, numbers := strings.ToLower(v.value), 0
		message = words.ReplaceAllStringFunc(message, func(word string) string {
			inside, err := strconv.Unquote(word)
			if isNumber(word) {
				numbers++
			}
			switch {
			case strings.HasPrefix(word, "${"):
				return word
			case err == nil && (shares(value, strings.ToLower(inside)) || strings.Contains(value, strings.ToLower(inside))):
				return strconv.Quote("${" + v.name + "}")
			case word == v.value, shares(value, strings.ToLower(word)), isNumber(word) && numbers == 1:
				return "${" + v.name + "}"
			}
			return word
		})
	}
	return message
}

// redactWhole takes every secret and every value of a variable out of a text, wherever it came from.
func (d *decoder) redactWhole(text string) string {
	for value, shown := range d.secrets {
		if len(value) >= telling && strings.Contains(text, value) {
			text = strings.ReplaceAll(text, value, shown)
		}
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
