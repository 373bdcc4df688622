package config

import (
	"errors"
	"fmt"
	"strings"
)

// variable is one substitution that was made.
type variable struct {
	name, value string
	written     bool // value is the default that the file has
}

// shown is what a report may show of v: whoever reads the file sees its default.
func (v variable) shown() string {
	if v.written {
		return v.value
	}
	return v.reference()
}

func (v variable) reference() string { return "${" + v.name + "}" }

// expanded is a text after its variables were replaced.
type expanded struct {
	value string
	shown string // what a report may show: the text with references in place of what is in the environment
	used  []variable
}

var (
	errVariable = errors.New(`"${" is not followed by the name of a variable and "}"`)
	errUnset    = errors.New(`is not set`)
	errNested   = errors.New(`a variable inside another's default or message is not replaced`)
)

// expand replaces the variables of one value: ${VAR}, ${VAR:-default} and ${VAR:?message}; $${ stands for ${. As in a
// shell, the colon forms treat an empty variable like one that is not set. It works on values, after parsing, so that what
// is in a variable cannot change the structure of the file. Its errors contain names of variables only.
func expand(text string, env func(string) (string, bool)) (expanded, error) {
	var value, shown strings.Builder
	var used []variable
	write := func(text string) { value.WriteString(text); shown.WriteString(text) }
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			write(text)
			return expanded{value.String(), shown.String(), used}, nil
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			write(literal + "${")
			text = rest
			continue
		}
		inside, after, closed := strings.Cut(rest, "}")
		switch {
		case !closed:
			return expanded{}, errVariable
		case strings.Contains(inside, "${"): // would end at the first "}" and leave the other in the value
			return expanded{}, errNested
		}
		v, err := lookup(inside, env)
		if err != nil {
			return expanded{}, err
		}
		write(before)
		value.WriteString(v.value)
		shown.WriteString(v.shown())
		used = append(used, v)
		text = after
	}
}

func lookup(inside string, env func(string) (string, bool)) (variable, error) {
	name, alternative, colon := strings.Cut(inside, ":")
	if !isVariable(name) {
		return variable{}, errVariable
	}
	value, set := env(name)
	switch {
	case !colon && set, colon && value != "":
		return variable{name: name, value: value}, nil
	case !colon:
		return variable{}, fmt.Errorf("variable %s %w", name, errUnset)
	case strings.HasPrefix(alternative, "-"):
		return variable{name: name, value: alternative[1:], written: true}, nil
	case strings.HasPrefix(alternative, "?"):
		return variable{}, fmt.Errorf("variable %s %w: %s", name, errUnset, alternative[1:])
	}
	return variable{}, errVariable
}

func isVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}
