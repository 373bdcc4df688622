package config

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Bounds of a file. The time of the YAML parser grows with the square of the entries of a mapping (600,000 tokens took
// minutes) and its stack with the nesting, so both are bounded before it runs. 30,000 tokens are 10,000 settings.
const (
	maxFile   = 1 << 20
	maxTokens = 30_000
	maxDepth  = 64
)

// position is a place in a file, from 1; columns count characters.
type position struct{ line, column int }

// parseYAML returns the root mapping of a file that begins with a key, nil when what is reported makes that impossible.
func parseYAML(data []byte, key string, report *Report) (root *ast.MappingNode) {
	fail := func(at position, message, hint string) *ast.MappingNode {
		report.add(Problem{Line: at.line, Column: at.column, Message: message, Hint: hint})
		return nil
	}
	start := position{1, 1}
	defer func() { // a library that parses outside text is not trusted to never panic
		if recover() != nil {
			root = fail(start, "not YAML that can be parsed", "")
		}
	}()
	if len(data) > maxFile {
		return fail(start, fmt.Sprintf("the file has more than %d bytes", maxFile), "")
	}
	if at, ok := findInvalid(data); ok {
		return fail(at, "not UTF-8, or a control character", "")
	}
	tokens := withoutComments(lexer.Tokenize(string(data)))
	if len(tokens) > maxTokens {
		return fail(start, "the file has too many entries", "")
	}
	before := len(report.Problems)
	checkTokens(tokens, report)
	if len(report.Problems) > before {
		return nil
	}
	file, err := parser.Parse(plainTexts(tokens, report), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return fail(syntaxError(err, data))
	}
	content, extra := documents(file)
	switch mapping, isMapping := content.(*ast.MappingNode); {
	case content == nil:
		return fail(start, "the file is empty", "begin with "+key+":")
	case extra != nil:
		return fail(startOf(extra), "the file has more than one document", "remove what follows ---")
	case !isMapping:
		return fail(startOf(content), "the file is not a list of keys with values", "begin with "+key+":")
	default:
		return mapping
	}
}

// findInvalid finds the first byte that is no text.
func findInvalid(data []byte) (position, bool) {
	at := position{1, 1}
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1, r < ' ' && r != '\n' && r != '\r' && r != '\t', r == 0x7f:
			return at, true
		case r == '\n':
			at = position{at.line + 1, 1}
		default:
			at.column++
		}
		i += size
	}
	return at, false
}

func withoutComments(all token.Tokens) token.Tokens {
	var tokens token.Tokens
	for _, t := range all {
		if t.Type != token.CommentType {
			tokens.Add(t) // also links it to its new neighbours
		}
	}
	return tokens
}

// notSupported are the parts of YAML that a configuration does without. Anchors and aliases would allow a short file to
// describe a huge configuration, and make two settings out of one line of a report.
var notSupported = map[token.Type][2]string{
	token.AnchorType:     {"anchors (&) are not supported", "put text that begins with & in quotes"},
	token.AliasType:      {"aliases (*) are not supported", "put text that begins with * in quotes"},
	token.MergeKeyType:   {"merge keys (<<) are not supported", "write the keys out"},
	token.TagType:        {"tags (!) are not supported", "put text that begins with ! in quotes"},
	token.DirectiveType:  {"directives (%) are not supported", "put text that begins with % in quotes"},
	token.MappingKeyType: {"complex keys (?) are not supported", "put text that begins with ? in quotes"},
}

func checkTokens(tokens token.Tokens, report *Report) {
	flow, dashes, line := 0, 0, 0
	for _, t := range tokens {
		at := tokenPosition(t)
		if at.line != line {
			line, dashes = at.line, 0
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType:
			dashes++ // deeper nesting takes a longer line, or this: - - - -
		}
		if flow > maxDepth || dashes > maxDepth || at.column > maxFile/maxDepth && t.Type == token.MappingValueType {
			report.add(Problem{Line: at.line, Column: at.column, Message: "nested too deeply"})
			return
		}
		if why, found := notSupported[t.Type]; found {
			report.add(Problem{Line: at.line, Column: at.column, Message: why[0], Hint: why[1]})
		}
	}
}

// documents returns the file's first document that has a content, and the next one if there is another.
func documents(file *ast.File) (first, second ast.Node) {
	for _, d := range file.Docs {
		switch {
		case d.Body == nil:
		case first == nil:
			first = d.Body
		case second == nil:
			second = d.Body
		}
	}
	return first, second
}

// syntaxError takes the parser's message, which has no values of the file in it, and leaves its excerpt, which has.
func syntaxError(err error, data []byte) (at position, message, hint string) {
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) {
		return position{1, 1}, "not YAML", ""
	}
	at = tokenPosition(syntax.GetToken())
	message = syntax.GetMessage()
	switch text := lineOf(data, at.line); {
	case strings.HasPrefix(strings.TrimLeft(text, " "), "\t"):
		message, hint = "a tab at the beginning of a line", "indent with spaces"
	case strings.Contains(message, "value is not allowed in this context"):
		if line := misindented(data, at.line); line > 0 {
			at = position{line, indentOf(lineOf(data, line)) + 1}
			message, hint = "the line is not indented like those that it belongs to", "indent the keys of a section alike, with spaces"
		}
	}
	return at, message, hint
}

// misindented is the number of a line that is indented in an odd way, the first of n and the one after it; 0 = neither is.
func misindented(data []byte, n int) int {
	var open []int // columns at which keys and entries may go on
	filled := true // the line before has a value already, so nothing may be below it
	number := 0
	for line := range bytes.Lines(data) {
		number++
		text := strings.TrimRight(string(line), " \r\n")
		at := indentOf(text)
		if at == len(text) || text[at] == '#' {
			continue
		}
		known := slices.Contains(open, at)
		if deeper := len(open) == 0 || at > open[len(open)-1]; number >= n && (deeper && filled && len(open) > 0 || !deeper && !known) {
			return number
		}
		if number > n {
			return 0
		}
		open = slices.DeleteFunc(open, func(column int) bool { return column >= at })
		open = append(open, at)
		for strings.HasPrefix(text[at:], "- ") {
			at += 2 + indentOf(text[at+2:])
			open = append(open, at)
		}
		filled = !strings.HasSuffix(text, ":") && text[at:] != "-"
	}
	return 0
}

func indentOf(text string) int { return len(text) - len(strings.TrimLeft(text, " ")) }

func lineOf(data []byte, n int) string {
	for line := range bytes.Lines(data) {
		if n--; n == 0 {
			return string(line)
		}
	}
	return ""
}

// startOf is where a node begins. The token of a block mapping is the colon of its first key.
func startOf(n ast.Node) position {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return startOf(m.Values[0].Key)
	}
	return tokenPosition(n.GetToken())
}

func tokenPosition(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{max(1, t.Position.Line), max(1, t.Position.Column)}
}
