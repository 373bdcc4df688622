package ncs

// scanner walks over a body as walker does, for a quarter of the cost: every call pays for it, copies too. It takes valid JSON of
// the ordinary kind only. What is out of the ordinary, right or wrong, it leaves to the walker: errors, escapes in names and of
// surrogates, deep nesting, members twice.
type scanner struct {
	body []byte
	at   int
	n    *Notification
}

// scanDepth is deeper than notifications are.
const scanDepth = 32

// scan notes where the fields are; false: it is for the walker to say.
func (n *Notification) scan() bool {
	s := scanner{body: n.body, n: n}
	ok := s.next() == '{' && s.object(envelope, scanDepth) && s.next() == 0 && s.at == len(s.body)
	if !ok {
		n.spans = [fieldCount]span{}
	}
	return ok
}

// next skips white space and returns the byte behind it; 0 at the end.
func (s *scanner) next() byte {
	for ; s.at < len(s.body); s.at++ {
		switch c := s.body[s.at]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// take takes the byte that comes next, behind white space, if it is c.
func (s *scanner) take(c byte) bool {
	if s.next() != c {
		return false
	}
	s.at++
	return true
}

// object reads the object that begins here.
func (s *scanner) object(in scope, depth int) bool {
	s.at++
	if depth == 0 {
		return false
	}
	if s.take('}') {
		return true
	}
	for {
		if s.next() != '"' {
			return false
		}
		begin := s.at + 1
		if escaped, ok := s.text(); !ok || escaped {
			return false
		}
		f, inner := in.member(s.body[begin : s.at-1])
		if f != fNone && s.n.spans[f].end != 0 || !s.take(':') {
			return false
		}
		c := s.next()
		start := s.at
		if !s.value(c, inner, depth) {
			return false
		}
		if f != fNone {
			s.n.spans[f] = span{uint32(start), uint32(s.at)}
		}
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

// value reads the value that begins here with c. An object is looked into as a scope.
func (s *scanner) value(c byte, in scope, depth int) bool {
	switch c {
	case '{':
		return s.object(in, depth-1)
	case '[':
		return s.array(depth - 1)
	case '"':
		_, ok := s.text()
		return ok
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

func (s *scanner) array(depth int) bool {
	s.at++
	if depth == 0 {
		return false
	}
	if s.take(']') {
		return true
	}
	for {
		if !s.value(s.next(), noScope, depth) {
			return false
		}
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
	}
}

func (s *scanner) word(w string) bool {
	if len(s.body)-s.at < len(w) || string(s.body[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}

// literal are the bytes that stand for themselves in a string.
var literal = func() (table [256]bool) {
	for c := range table {
		table[c] = c >= ' ' && c != '"' && c != '\\'
	}
	return table
}()

// text reads the string that begins here, and reports whether it has escapes.
func (s *scanner) text() (escaped, ok bool) {
	body := s.body
	for i := s.at + 1; i < len(body); i++ {
		if literal[body[i]] {
			continue
		}
		switch body[i] {
		case '"':
			s.at = i + 1
			return escaped, true
		case '\\':
			length := escapeLength(body[i+1:])
			if length == 0 {
				return false, false
			}
			escaped, i = true, i+length
		default: // a control character
			return false, false
		}
	}
	return false, false
}

// escapeLength is how many bytes behind a backslash belong to it; 0: it is no escape, or one of a surrogate.
func escapeLength(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	switch b[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 1
	case 'u':
		if len(b) < 5 || (b[1]|0x20) == 'd' && b[2] >= '8' {
			return 0
		}
		for _, c := range b[1:5] {
			if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f') {
				return 0
			}
		}
		return 5
	}
	return 0
}

func (s *scanner) number() bool {
	if s.at < len(s.body) && s.body[s.at] == '-' {
		s.at++
	}
	if zero := s.at; !s.digits() || s.body[zero] == '0' && s.at > zero+1 {
		return false
	}
	if s.at < len(s.body) && s.body[s.at] == '.' {
		s.at++
		if !s.digits() {
			return false
		}
	}
	if s.at < len(s.body) && s.body[s.at]|0x20 == 'e' {
		s.at++
		if s.at < len(s.body) && (s.body[s.at] == '+' || s.body[s.at] == '-') {
			s.at++
		}
		return s.digits()
	}
	return true
}

// digits reads at least one.
func (s *scanner) digits() bool {
	begin := s.at
	for s.at < len(s.body) && '0' <= s.body[s.at] && s.body[s.at] <= '9' {
		s.at++
	}
	return s.at > begin
}
