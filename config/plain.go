package config

import (
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/token"
)

// plainTexts puts together what the lexer cuts though it is one text: inside { } it ends k1:9092 and fd00::/8 at the colon, which
// for YAML it does only before a space. What YAML does not take without quotes, [::1]:9464 and ${VAR} inside brackets, is
// reported and then taken for what is meant, so that the other mistakes of the file are found too.
func plainTexts(tokens token.Tokens, report *Report) token.Tokens {
	var out token.Tokens
	var open []token.Type
	for i := 0; i < len(tokens); {
		t := tokens[i]
		end, mistake := textEnd(tokens, i, len(open) > 0 && open[len(open)-1] == token.SequenceStartType)
		if mistake != nil {
			mistake.Line, mistake.Column = t.Position.Line, t.Position.Column
			report.add(*mistake)
		}
		if end > i+1 {
			var text strings.Builder
			for _, part := range tokens[i:end] {
				text.WriteString(part.Value)
			}
			out.Add(token.String(text.String(), text.String(), t.Position))
			i = end
			continue
		}
		switch {
		case isOpening(t):
			open = append(open, t.Type)
		case isClosing(t) && len(open) > 0:
			open = open[:len(open)-1]
		}
		out.Add(t)
		i++
	}
	return out
}

// textEnd is the place behind the text that begins at i, and what is wrong with it; i if it is no text.
func textEnd(tokens token.Tokens, i int, inList bool) (end int, mistake *Problem) {
	end = i
	if after := closing(tokens, i) + 1; tokens[i].Type == token.SequenceStartType && after > 0 && beginsText(tokens, after) {
		end, mistake = after, &Problem{Message: "text that begins with [ is taken for a list", Hint: "put it in quotes"}
	}
	for ; end < len(tokens) && (end == i || adjoins(tokens, end)); end++ {
		switch t := tokens[end]; {
		case isPlain(t):
		case t.Type == token.MappingStartType && end > i && strings.HasSuffix(tokens[end-1].Value, "$") && closing(tokens, end) > 0:
			end = closing(tokens, end)
			mistake = &Problem{Message: "a variable without quotes", Hint: `inside { } and [ ] write "${VAR}"`}
		case beginsText(tokens, end) && (inList || mistake != nil || end == i) && (end > i || i > 0 && isSeparator(tokens[i-1])):
		default:
			return end, mistake
		}
	}
	return end, mistake
}

// beginsText reports whether the colon at i is one of a text: nothing stands between it and what follows.
func beginsText(tokens token.Tokens, i int) bool {
	switch {
	case i >= len(tokens) || i == 0 || !strings.HasPrefix(tokens[i].Value, ":"):
		return false
	case isPlain(tokens[i]):
		return adjoins(tokens, i)
	}
	return tokens[i].Type == token.MappingValueType && i+1 < len(tokens) && adjoins(tokens, i+1) &&
		(isPlain(tokens[i+1]) || tokens[i+1].Type == token.MappingValueType)
}

// closing is the place of the bracket that closes the one at i; -1 = there is none.
func closing(tokens token.Tokens, i int) int {
	depth := 0
	for at := i; at < len(tokens); at++ {
		switch {
		case isOpening(tokens[at]):
			depth++
		case isClosing(tokens[at]):
			depth--
		}
		if depth <= 0 {
			return at
		}
	}
	return -1
}

// adjoins reports whether the token at i begins where the one before it ends.
func adjoins(tokens token.Tokens, i int) bool {
	before, at := tokens[i-1].Position, tokens[i].Position
	return before.Line == at.Line && before.Column+utf8.RuneCountInString(tokens[i-1].Value) == at.Column
}

// isPlain reports whether t is a value without quotes.
func isPlain(t *token.Token) bool {
	switch t.Type {
	case token.StringType, token.BoolType, token.NullType, token.IntegerType, token.BinaryIntegerType, token.OctetIntegerType,
		token.HexIntegerType, token.FloatType, token.InfinityType, token.NanType:
		return true
	}
	return false
}

func isOpening(t *token.Token) bool {
	return t.Type == token.MappingStartType || t.Type == token.SequenceStartType
}

func isClosing(t *token.Token) bool {
	return t.Type == token.MappingEndType || t.Type == token.SequenceEndType
}

func isSeparator(t *token.Token) bool { return isOpening(t) || t.Type == token.CollectEntryType }
