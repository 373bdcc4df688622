package route

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/parser/utils"
	"github.com/expr-lang/expr/vm"

	"ncs-relay/relay/ncs"
)

// rehearsal is a when that is tried on the sample bodies of the events that its rule takes. What is inside payload is
// known only then, and in production a when that fails is a rule that quietly never applies.
type rehearsal struct {
	when    *Expr
	samples []*evaluation
}

// samples are ready for many rules: each decodes its payload once.
func (r *Router) samples() []*evaluation {
	var all []*evaluation
	for _, s := range ncs.Samples() {
		if (kind{Info: s.Info, of: r.catalogue}).arrivesAt(r.sources) {
			all = append(all, &evaluation{n: s.Notification, source: r.sources[0].Name, receivedAt: time.Unix(0, 0)})
		}
	}
	return all
}

func (c *compiler) rehearse(path string, r *rule, samples []*evaluation) {
	h := rehearsal{when: r.when, samples: slices.DeleteFunc(slices.Clone(samples), func(s *evaluation) bool { return !r.possible(kind{Info: s.n.Info, of: c.Catalogue}) })}
	h.reportFailures(c, path)
	h.reportBytes(c, path)
}

// reportFailures says on which samples the expression fails, and what would not.
func (h *rehearsal) reportFailures(c *compiler, path string) {
	var fails []*evaluation
	var first error
	for _, s := range h.samples {
		if _, err := h.when.eval(s); err != nil {
			fails = append(fails, s)
			if first == nil {
				first = err
			}
		}
	}
	if first == nil {
		return
	}
	problem := fmt.Sprintf("fails, and so does not apply, on %d of the %d sample events that its rule takes, such as %s: ",
		len(fails), len(h.samples), nameOf(fails[0]))
	if better := h.guarded(); better != "" && len(fails) < len(h.samples) {
		c.report(Warning, path, problem+"%v", "write %s", first, better)
	} else {
		c.report(Warning, path, problem+"%v", h.remedy(fails), first)
	}
}

func nameOf(s *evaluation) string { return s.n.Info.Product + "." + s.n.Info.Event }

// remedy says what to do where no expression that is a little longer would do.
func (h *rehearsal) remedy(fails []*evaluation) string {
	if len(fails) == len(h.samples) {
		return "ncs-relay events show EVENT says what a payload holds"
	}
	var names []string
	for _, s := range h.samples {
		bad := slices.ContainsFunc(fails, func(f *evaluation) bool { return f.n.Info == s.n.Info })
		if name := nameOf(s); !bad && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 || len(names) > 5 {
		return "let match.event name the events that it is for"
	}
	return "it is for " + andList(names) + ": name that in match.event"
}

// guarded is an expression that decides the same where this one does, and is false where this one fails; "" if there is none. It
// puts a check in front for each member that may be missing, as few as will do.
func (h *rehearsal) guarded() string {
	src := h.when.program.Source().String()
	tree, err := parser.Parse(src)
	if err != nil {
		return ""
	}
	var m members
	ast.Walk(&tree.Node, &m)
	src = tree.Node.String()
	if b, ok := tree.Node.(*ast.BinaryNode); !ok || slices.Contains([]string{"or", "||", "??"}, b.Operator) {
		src = "(" + src + ")"
	}
	guards := m.guards()
	for i := 0; i < len(guards); {
		if fewer := slices.Delete(slices.Clone(guards), i, i+1); h.isAsGood(fewer, src) {
			guards = fewer
		} else {
			i++
		}
	}
	if !h.isAsGood(guards, src) {
		return ""
	}
	return strings.Join(append(guards, src), " and ")
}

func (h *rehearsal) isAsGood(guards []string, src string) bool {
	x, err := CompileExpr(strings.Join(append(slices.Clone(guards), src), " and "))
	return err == nil && !slices.ContainsFunc(h.samples, func(s *evaluation) bool {
		was, failed := h.when.eval(s)
		is, err := x.eval(s)
		return err != nil || is != (was && failed == nil)
	})
}

// members collects what an expression takes out of payload by name: payload.details.status.
type members struct{ paths [][]string }

func (m *members) Visit(node *ast.Node) {
	var path []string
	for n := *node; ; {
		member, ok := n.(*ast.MemberNode)
		if !ok {
			if root, ok := n.(*ast.IdentifierNode); ok && root.Value == "payload" && len(path) > 0 {
				slices.Reverse(path)
				m.paths = append(m.paths, path)
			}
			return
		}
		name, ok := member.Property.(*ast.StringNode)
		if !ok || !utils.IsValidIdentifier(name.Value) {
			return
		}
		path, n = append(path, name.Value), member.Node
	}
}

// guards are the checks for the longest paths: a part of one is checked with it.
func (m *members) guards() []string {
	var guards []string
	for _, p := range m.paths {
		longer := func(q []string) bool { return len(q) > len(p) && slices.Equal(q[:len(p)], p) }
		guard := "payload." + strings.Join(p, "?.") + " != nil"
		if !slices.ContainsFunc(m.paths, longer) && !slices.Contains(guards, guard) {
			guards = append(guards, guard)
		}
	}
	return guards
}

// reportBytes warns of elements of a text: expr takes them for bytes, so that payload.cname[0] == "a" is never true.
func (h *rehearsal) reportBytes(c *compiler, path string) {
	tree, err := parser.Parse(h.when.program.Source().String())
	if err != nil {
		return
	}
	var e elements
	ast.Walk(&tree.Node, &e)
	for _, of := range dedupe(e.of) {
		program, err := expr.Compile(of, options()[:1:1]...)
		if err != nil { // it is about an element of something else, of which nothing is known here
			continue
		}
		if i := slices.IndexFunc(h.samples, func(s *evaluation) bool { return isText(program, s) }); i >= 0 {
			c.report(Warning, path, "%s is a text in "+nameOf(h.samples[i])+": its elements are bytes (numbers), and equal no text", "%s[0:1] is a text", of, of)
		}
	}
}

func isText(program *vm.Program, s *evaluation) bool {
	vars, err := s.variables(true)
	if err != nil {
		return false
	}
	machine := vm.VM{MemoryBudget: maxExprMemory}
	out, err := machine.Run(program, vars)
	_, ok := out.(string)
	return err == nil && ok
}

// elements collects of what an expression takes elements by their place, or one after the other.
type elements struct{ of []string }

func (e *elements) Visit(node *ast.Node) {
	switch n := (*node).(type) {
	case *ast.MemberNode:
		switch place := n.Property.(type) {
		case *ast.IntegerNode:
			e.of = append(e.of, n.Node.String())
		case *ast.UnaryNode: // from the end
			if place.Operator == "-" {
				e.of = append(e.of, n.Node.String())
			}
		}
	case *ast.BuiltinNode:
		byPlace := slices.Contains([]string{"first", "last", "get"}, n.Name)
		if (byPlace || slices.Contains(walkers, n.Name)) && len(n.Arguments) > 0 {
			e.of = append(e.of, n.Arguments[0].String())
		}
	}
}
