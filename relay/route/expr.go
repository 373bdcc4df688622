package route

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
	"github.com/go-json-experiment/json/jsontext"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
)

// Bounds of an expression. Expressions are the operator's own and so are trusted to mean well, but a mistake in one must
// not stop the relay: there is no instruction limit in expr, so what can loop without need is refused at load.
const (
	maxExprLength = 4096      // bytes
	maxExprNodes  = 1000      // of the syntax tree
	maxExprMemory = 1_000_000 // elements an evaluation may allocate
	maxExprLoops  = 2         // predicates inside each other: the files of the users of an event are two
)

// allowed are the builtins of expr an expression may use. They are chosen, not excluded, so that a new version of expr
// brings none in unseen. Missing on purpose: now (the dry run must decide as production did), timezone (reads files),
// repeat, flatten, sort and the like (make large values).
var allowed = []string{
	"all", "any", "none", "one", "count", "filter", "find", "map", "sum",
	"len", "first", "last", "get", "keys", "values",
	"int", "float", "string", "type", "abs", "ceil", "floor", "round", "min", "max",
	"lower", "upper", "trim", "trimPrefix", "trimSuffix", "split", "indexOf", "hasPrefix", "hasSuffix",
	"date", "duration",
}

// variables are what an expression sees.
type variables struct {
	Product    string         `expr:"product"`
	Event      string         `expr:"event"`
	EventType  int            `expr:"event_type"`
	Category   string         `expr:"category"`
	Entity     string         `expr:"entity"`
	Source     string         `expr:"source"`
	ReceivedAt time.Time      `expr:"received_at"`
	Payload    map[string]any `expr:"payload"`
}

var variableNames = []string{"product", "event", "event_type", "category", "entity", "source", "received_at", "payload"}

// Expr is a compiled expression of a rule's when or a source's test_match. It is immutable and may be used concurrently.
type Expr struct {
	program     *vm.Program
	usesPayload bool
}

// CompileExpr compiles an expression (https://expr-lang.org) that yields a bool over
//
//	product, event, category, entity, source   string ("" = none)
//	event_type                                 int
//	received_at                                time.Time
//	payload                                    the payload object
//
// Names and types are checked; what is inside payload is known only at run time. In payload, numbers written as integers
// are ints, exact up to 64 bits; other numbers, and integers beyond, are floats. A missing member is nil; a member of
// nil, or an operation on the wrong type, fails the evaluation. `payload.details?.errorLevel` takes nil instead.
//
// The error is one line fit for people.
func CompileExpr(src string) (_ *Expr, err error) {
	// A library that parses, checks and folds outside text is not trusted to never panic.
	defer func() {
		if p := recover(); p != nil {
			err = problem.Errorf("cannot be compiled: %v", p)
		}
	}()
	if len(src) > maxExprLength {
		return nil, problem.Errorf("%d bytes long, at most %d are allowed", len(src), maxExprLength)
	}
	if !utf8.ValidString(src) {
		return nil, problem.Errorf("not UTF-8")
	}
	tree, err := parser.Parse(src)
	if err != nil {
		return nil, oneLine(src, err)
	}
	a := audit{loops: map[ast.Node]int{}}
	ast.Walk(&tree.Node, &a)
	if a.err != nil {
		return nil, oneLine(src, a.err.Bind(tree.Source))
	}
	program, err := expr.Compile(src, options()...)
	if err != nil {
		return nil, oneLine(src, err)
	}
	return &Expr{program: program, usesPayload: a.usesPayload}, nil
}

func options() []expr.Option {
	opts := []expr.Option{expr.Env(&variables{}), expr.AsBool(), expr.MaxNodes(maxExprNodes), expr.DisableAllBuiltins()}
	for _, name := range allowed {
		opts = append(opts, expr.EnableBuiltin(name))
	}
	return opts
}

// Eval evaluates the expression over an event. An error means that the expression does not fit the event.
func (x *Expr) Eval(n *ncs.Notification, source string, receivedAt time.Time) (bool, error) {
	return x.eval(&evaluation{n: n, source: source, receivedAt: receivedAt})
}

func (x *Expr) eval(e *evaluation) (bool, error) {
	vars, err := e.variables(x.usesPayload)
	if err != nil {
		return false, err
	}
	machine := vm.VM{MemoryBudget: maxExprMemory}
	out, err := machine.Run(x.program, vars)
	if err != nil {
		return false, oneLine(x.program.Source().String(), err)
	}
	holds, ok := out.(bool)
	if !ok {
		return false, problem.Errorf("gives a %T, not a bool", out)
	}
	return holds, nil
}

// evaluation is one event under evaluation. It makes the variables when the first expression asks for them, and decodes
// the payload when the first one asks for that.
type evaluation struct {
	n          *ncs.Notification
	source     string
	receivedAt time.Time

	vars *variables
}

func (e *evaluation) variables(payload bool) (*variables, error) {
	if e.vars == nil {
		e.vars = &variables{
			Product: e.n.Info.Product, Event: e.n.Info.Event, EventType: e.n.EventType, Category: e.n.Info.Category,
			Entity: e.n.Entity, Source: e.source, ReceivedAt: e.receivedAt,
		}
	}
	if payload && e.vars.Payload == nil {
		p, err := decodePayload(e.n.Payload)
		if err != nil {
			return nil, err
		}
		e.vars.Payload = p
	}
	return e.vars, nil
}

func decodePayload(raw []byte) (map[string]any, error) {
	// As in Parse: what it passes on must not keep rules from seeing the rest. Of a member that comes twice the last counts.
	d := jsontext.NewDecoder(bytes.NewBuffer(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	v, err := decodeValue(d)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, problem.Errorf("payload is no object")
	}
	return object, nil
}

func decodeValue(d *jsontext.Decoder) (any, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case '{':
		return decodeObject(d)
	case '[':
		return decodeArray(d)
	case '"':
		return t.String(), nil
	case '0':
		return number(t.String()), nil
	case 't', 'f':
		return t.Bool(), nil
	}
	return nil, nil
}

func decodeObject(d *jsontext.Decoder) (any, error) {
	object := map[string]any{}
	for d.PeekKind() != '}' {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String() // before the next read, which overwrites the token
		if object[key], err = decodeValue(d); err != nil {
			return nil, err
		}
	}
	_, err := d.ReadToken()
	return object, err
}

func decodeArray(d *jsontext.Decoder) (any, error) {
	array := []any{}
	for d.PeekKind() != ']' {
		v, err := decodeValue(d)
		if err != nil {
			return nil, err
		}
		array = append(array, v)
	}
	_, err := d.ReadToken()
	return array, err
}

// number keeps integers exact. One that does not fit becomes the nearest float, not a string: it still compares
// correctly with everything but its close neighbours, whereas comparing a string with a number fails.
func number(raw string) any {
	if i, err := strconv.Atoi(raw); err == nil {
		return i
	}
	f, err := strconv.ParseFloat(raw, 64)
	if err != nil && !math.IsInf(f, 0) {
		return nil
	}
	return f
}

// audit walks over a syntax tree, children first, and refuses what could run away.
type audit struct {
	loops       map[ast.Node]int // per predicate: how deep predicates are nested in it, itself included
	usesPayload bool
	err         *file.Error
}

func (a *audit) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.IdentifierNode:
		if n.Value == "$env" {
			a.refuse(n, "$env is not available")
		}
		a.usesPayload = a.usesPayload || n.Value == "payload"
	case *ast.BuiltinNode:
		if !slices.Contains(allowed, n.Name) {
			a.refuse(n, "function "+n.Name+" is not available")
		}
	case *ast.BinaryNode:
		switch n.Operator {
		case "..":
			a.refuse(n, "the range operator .. is not available")
		case "matches":
			if _, literal := n.Right.(*ast.StringNode); !literal {
				a.refuse(n, "the pattern of matches must be a literal")
			}
		}
	case *ast.PredicateNode:
		deepest := &deepest{loops: a.loops}
		ast.Walk(&n.Node, deepest)
		a.loops[n] = deepest.depth + 1
		if a.loops[n] > maxExprLoops {
			a.refuse(n, fmt.Sprintf("more than %d predicates inside each other", maxExprLoops))
		}
		ast.Walk(&n.Node, &crossing{a})
	}
}

func (a *audit) refuse(n ast.Node, why string) {
	if a.err == nil {
		a.err = &file.Error{Location: n.Location(), Message: why}
	}
}

// walkers are the allowed builtins that go through a whole list or map.
var walkers = []string{"all", "any", "none", "one", "count", "filter", "find", "map", "sum", "keys", "values"}

// crossing refuses lists that are walked again for each element of another one: two of 100,000 elements, which fit into one
// body, would take hours. A list inside the element is walked once.
type crossing struct{ *audit }

func (c *crossing) Visit(node *ast.Node) {
	var lists []ast.Node
	switch n := (*node).(type) {
	case *ast.BuiltinNode:
		if slices.Contains(walkers, n.Name) {
			lists = n.Arguments
		}
	case *ast.BinaryNode:
		if n.Operator == "in" {
			lists = []ast.Node{n.Right}
		}
	}
	outside := func(list ast.Node) bool {
		var element elementOf
		switch list.(type) {
		case *ast.PredicateNode, *ast.ArrayNode: // its elements are its own, or written out
			return false
		}
		ast.Walk(&list, &element)
		return !element.found
	}
	if slices.ContainsFunc(lists, outside) {
		c.refuse(*node, "a list outside of the element is walked again for each one: look into the element, as in any(payload.uids, any(#.fileList, ...))")
	}
}

// elementOf finds out whether something is a part of the element that a predicate is about.
type elementOf struct{ found bool }

func (e *elementOf) Visit(node *ast.Node) {
	if n, ok := (*node).(*ast.PointerNode); ok && n.Name == "" {
		e.found = true
	}
}

// deepest finds the deepest of the predicates below a node.
type deepest struct {
	loops map[ast.Node]int
	depth int
}

func (d *deepest) Visit(node *ast.Node) { d.depth = max(d.depth, d.loops[*node]) }

// oneLine folds expr's error, which shows the source with a caret below on lines of its own, into one line.
func oneLine(src string, err error) error {
	var fe *file.Error
	if !errors.As(err, &fe) || fe.Line == 0 {
		return errors.New(strings.Join(strings.Fields(err.Error()), " "))
	}
	message := errors.New(strings.Join(strings.Fields(fe.Message), " ")) // in which words and values are one
	lines := strings.Split(src, "\n")
	where := fmt.Sprintf("at character %d", fe.Column+1)
	if len(lines) > 1 {
		where = fmt.Sprintf("at line %d, character %d", fe.Line, fe.Column+1)
	}
	rest := []rune(lines[min(fe.Line, len(lines))-1])
	rest = rest[min(fe.Column, len(rest)):]
	if text := strings.TrimSpace(string(rest[:min(30, len(rest))])); text != "" {
		return problem.Errorf("%w ("+where+": %s)", message, text)
	}
	return problem.Errorf("%w ("+where+", the end)", message)
}
