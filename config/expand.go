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

var (
	errVariable = errors.New(`"${" is not followed by the name of a variable and "}"`)
	errNested   = errors.New(`a variable inside another's default or message is not replaced`)
)

// expand replaces the variables of one value: ${VAR}, ${VAR:-default} and ${VAR:?message}; $${ stands for ${. As in a
// shell, the colon forms treat an empty variable like one that is not set. It works on values, after parsing, so that what
// is in a variable cannot change the structure of the file. Its errors contain names of variables only.
func expand(text string, env func(string) (string, bool)) (string, []variable, error) {
	var b strings.Builder
	var used []variable
	for {
		before, rest, found := strings.Cut(text, "${")
		if !found {
			b.WriteString(text)
			return b.String(), used, nil
		}
		if literal, escaped := strings.CutSuffix(before, "$"); escaped {
			b.WriteString(literal + "${")
			text = rest
			continue
		}
		inside, after, closed := strings.Cut(rest, "}")
		switch {
		case !closed:
			return "", nil, errVariable
		case strings.Contains(inside, "${"): // would end at the first "}" and leave the other in the value
			return "", nil, errNested
		}
		v, err := lookup(inside, env)
		if err != nil {
			return "", nil, err
		}
		used = append(used, v)
		b.WriteString(before + v.value)
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
		return variable{}, fmt.Errorf("variable %s is not set", name)
	case strings.HasPrefix(alternative, "-"):
		return variable{name: name, value: alternative[1:], written: true}, nil
	case strings.HasPrefix(alternative, "?"):
		return variable{}, fmt.Errorf("variable %s is not set: %s", name, alternative[1:])
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
