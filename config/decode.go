package config

import (
	"encoding"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"ncs-relay/relay"
	"ncs-relay/relay/spelling"
	"ncs-relay/sinks"
)

// decoder fills structs from a syntax tree. Unlike the YAML library's own decoder it goes on after a mistake, so that one
// run finds them all, and it remembers where each value stands, so that later checks can point there too.
type decoder struct {
	report *Report
	dir    string // relative paths are relative to it
	env    func(string) (string, bool)
	kinds  []sinks.Kind

	at      map[string]position // of every value, by path
	failed  map[string]bool     // paths with an error; what is checked later below them is not reported again
	away    bool                // what is missing here may be where the relay runs
	unread  map[string]string   // why a file here cannot be read, by path
	absent  []Absent            // what was not judged for either
	written map[string]string   // values in which variables were replaced, as they stand in the file
	foreign map[string]expanded // values with variables in them
	numbers map[string]int64    // of foreign, those that are numbers, durations or sizes
	secrets map[string]string   // values that no report may show, with what it shows instead
	masks   *strings.Replacer   // of secrets; nil = to be made
	files   []namedFile

	unquoted map[string]Problem // texts that YAML takes for something else, by path; reported where nothing else is
}

func newDecoder(report *Report, dir string, env func(string) (string, bool), kinds []sinks.Kind) *decoder {
	return &decoder{
		report: report, dir: dir, env: env, kinds: kinds,
		at:      map[string]position{},
		failed:  map[string]bool{},
		written: map[string]string{},
		foreign: map[string]expanded{},
		numbers: map[string]int64{},
		secrets: map[string]string{},
		unread:  map[string]string{},

		unquoted: map[string]Problem{},
	}
}

var (
	secretType   = reflect.TypeFor[relay.Secret]()
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
	kindType     = reflect.TypeFor[sinks.Kind]()
)

// field is a struct field that a file can set.
type field struct {
	name    string
	index   int
	typ     reflect.Type // of a Kind: that of its pointer
	options []string     // of the tag, see the package comment
}

func (f field) is(option string) bool { return slices.Contains(f.options, option) }

// in returns the value of the setting in a struct; of a kind that was not given, nil.
func (f field) in(v reflect.Value) reflect.Value {
	fv := v.Field(f.index)
	if fv.Type() != kindType {
		return fv
	}
	if fv.IsNil() || fv.Elem().Type() != f.typ {
		return reflect.Zero(f.typ)
	}
	return fv.Elem()
}

// fieldsOf lists the settings of a struct. Where it has a Kind, each of kinds is one.
func fieldsOf(t reflect.Type, kinds []sinks.Kind) []field {
	var fields []field
	for i := range t.NumField() {
		sf := t.Field(i)
		if sf.Type == kindType {
			for _, k := range kinds {
				fields = append(fields, field{name: k.Key(), index: i, typ: reflect.TypeOf(k)})
			}
		}
		options := strings.Split(sf.Tag.Get("yaml"), ",")
		if options[0] == "" || options[0] == "-" {
			continue
		}
		fields = append(fields, field{name: options[0], index: i, typ: sf.Type, options: options[1:]})
	}
	return fields
}

// isSection reports whether t is a struct made of settings, not a single value.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(textType)
}

// setDefaults gives a new struct, and the structs in it, what a file may leave out.
func (d *decoder) setDefaults(v reflect.Value) {
	if s, ok := v.Addr().Interface().(interface{ SetDefaults() }); ok {
		s.SetDefaults()
	}
	for _, f := range fieldsOf(v.Type(), nil) {
		fv := v.Field(f.index)
		switch {
		case f.is("path") && fv.Kind() == reflect.String:
			fv.SetString(d.absolute(fv.String()))
		case isSection(fv.Type()):
			d.setDefaults(fv)
		}
	}
}

func (d *decoder) absolute(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(d.dir, path)
}

// fail reports an error of the value at path.
func (d *decoder) fail(at position, path, message, hint string) {
	d.failed[path] = true
	d.report.add(Problem{Line: at.line, Column: at.column, Path: path, Message: message, Hint: hint})
}

// value decodes a node into v, which has its defaults.
func (d *decoder) value(n ast.Node, v reflect.Value, f field, path string) {
	if _, recorded := d.at[path]; !recorded {
		d.at[path] = startOf(n)
	}
	t := v.Type()
	switch {
	case t == kindType:
		kind := reflect.New(f.typ).Elem()
		d.value(n, kind, f, path)
		v.Set(kind)
	case v.Kind() == reflect.Pointer: // set also when what is in it is wrong: it is meant to be there
		v.Set(reflect.New(t.Elem()))
		if isSection(t.Elem()) {
			d.setDefaults(v.Elem())
		}
		d.value(n, v.Elem(), f, path)
	case n.Type() == ast.NullType:
		hint := "remove the key to get the default"
		if strings.HasSuffix(path, "]") {
			hint = "remove the entry"
		}
		d.fail(startOf(n), path, "has no value", hint)
	case isSection(t):
		if m, ok := n.(*ast.MappingNode); ok {
			d.section(m, v, path)
		} else {
			d.fail(startOf(n), path, "must be keys with values, not "+kindOf(n), "known keys: "+d.keyList(t))
		}
	case v.Kind() == reflect.Map:
		d.mapping(n, v, f, path)
	case v.Kind() == reflect.Slice:
		d.list(n, v, f, path)
	default:
		d.scalar(n, v, f, path)
	}
}

func (d *decoder) section(m *ast.MappingNode, v reflect.Value, path string) {
	fields := fieldsOf(v.Type(), d.kinds)
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	var given []string // of the kinds
	entries := d.entries(m, path)
	for _, e := range entries {
		name := e.key
		i := slices.Index(names, name)
		if i < 0 {
			name = d.unknownKey(e, entries, fields, names, path)
			if i = slices.Index(names, name); i < 0 {
				continue
			}
		}
		sub := join(path, name)
		d.atKey(e, sub)
		fv := v.Field(fields[i].index)
		if fv.Type() == kindType {
			if !fv.IsNil() { // the next takes its place
				d.check(fv.Elem(), join(path, given[len(given)-1]))
			}
			given = append(given, name)
		}
		d.value(e.value, fv, fields[i], sub)
	}
	if slices.ContainsFunc(fields, func(f field) bool { return v.Field(f.index).Type() == kindType }) {
		d.oneOf(given, path)
	}
}

// oneOf reports a sink that is not of one kind.
func (d *decoder) oneOf(given []string, path string) {
	switch {
	case len(given) == 0:
		var keys []string
		for _, k := range d.kinds {
			keys = append(keys, k.Key())
		}
		d.problem(Error, path, "the sink has no destination", "give one of "+strings.Join(keys, ", "))
	case len(given) > 1:
		d.problem(Error, path, "the sink has more than one destination: "+strings.Join(given, ", "), "make each a sink of its own")
	}
}

// unknownKey reports a key that the section does not have. If it is near a known one that is not there, it is taken for
// that: its value is checked too, and nobody is told in addition that the known one is missing.
func (d *decoder) unknownKey(e entry, entries []entry, fields []field, names []string, path string) (meant string) {
	meant = spelling.Nearest(e.key, names)
	hint := spelling.Hint(e.key, names)
	if hint == "" {
		hint = belongsIn(e.key, fields)
	}
	if hint == "" {
		hint = "known keys: " + strings.Join(names, ", ")
	}
	d.report.add(Problem{Line: e.at.line, Column: e.at.column, Path: join(path, showKey(e.key)), Message: "unknown key", Hint: hint})
	if slices.ContainsFunc(entries, func(o entry) bool { return o.key == meant }) {
		return ""
	}
	return meant
}

// belongsIn returns a hint when a key is one of a section among fields.
func belongsIn(key string, fields []field) string {
	for _, f := range fields {
		inner := f.typ
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if isSection(inner) && slices.ContainsFunc(fieldsOf(inner, nil), func(f field) bool { return f.name == key }) {
			return "it belongs in " + f.name
		}
	}
	return ""
}

func showKey(key string) string {
	if key == "" {
		return `""`
	}
	return clip(key)
}

// atKey remembers where a value is reported: a single value where it stands, a collection at its key.
func (d *decoder) atKey(e entry, path string) {
	switch e.value.(type) {
	case *ast.MappingNode, *ast.SequenceNode, *ast.NullNode:
		d.at[path] = e.at
	default:
		d.at[path] = startOf(e.value)
	}
}

// entry is one key of a mapping.
type entry struct {
	key   string
	at    position
	value ast.Node
}

// entries lists the keys of a mapping, each once.
func (d *decoder) entries(m *ast.MappingNode, path string) []entry {
	var entries []entry
	first := make(map[string]position, len(m.Values))
	for _, pair := range m.Values {
		e := entry{key: keyText(pair.Key), at: startOf(pair.Key), value: pair.Value}
		if at, again := first[e.key]; again {
			d.report.add(Problem{Line: e.at.line, Column: e.at.column, Path: join(path, showKey(e.key)),
				Message: fmt.Sprintf("the key is there twice, first at line %d", at.line)})
			continue
		}
		first[e.key] = e.at
		entries = append(entries, e)
	}
	return entries
}

func keyText(k ast.MapKeyNode) string {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value
	}
	return k.GetToken().Value
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, f field, path string) {
	m, ok := n.(*ast.MappingNode)
	if !ok {
		d.fail(startOf(n), path, "must be keys with values, not "+kindOf(n), "")
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range d.entries(m, path) {
		sub := path + "[" + e.key + "]"
		d.atKey(e, sub)
		key := reflect.New(v.Type().Key()).Elem()
		if key.Kind() == reflect.String {
			key.SetString(e.key)
		} else if number, err := strconv.Atoi(e.key); err == nil {
			key.SetInt(int64(number))
		} else {
			d.fail(e.at, sub, "key "+strconv.Quote(clip(e.key))+" must be a whole number", "")
			continue
		}
		elem := reflect.New(v.Type().Elem()).Elem()
		d.value(e.value, elem, f, sub)
		v.SetMapIndex(key, elem)
	}
}

func (d *decoder) list(n ast.Node, v reflect.Value, f field, path string) {
	var items []ast.Node
	sequence, ok := n.(*ast.SequenceNode)
	switch {
	case ok:
		items = sequence.Values
	case f.is("scalar") && isScalar(n):
		items = []ast.Node{n}
	case f.is("scalar"):
		d.fail(startOf(n), path, "must be a value or a list of values, not "+kindOf(n), "")
		return
	default:
		d.fail(startOf(n), path, "must be a list, not "+kindOf(n), "write [ ] around it, or each entry on a line of its own after a -")
		return
	}
	// A wrong item keeps its place, so that the paths of the others stay right.
	v.Set(reflect.MakeSlice(v.Type(), len(items), len(items)))
	for i, item := range items {
		elem := v.Index(i)
		if isSection(elem.Type()) {
			d.setDefaults(elem)
		}
		d.value(item, elem, f, fmt.Sprintf("%s[%d]", path, i))
	}
}

// text is a single value after variables were replaced.
type text struct {
	value   string
	plain   bool   // neither quoted nor from a variable: may mean a number, true or false
	replace bool   // a variable was replaced: may mean anything
	shown   string // what a report may show
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, f field, path string) {
	at := startOf(n)
	if !isScalar(n) {
		hint := ""
		if n.Type() == ast.MappingType && wanted(v.Type(), f) == "text" {
			hint = "put text with a colon in it, such as host:port, in quotes"
		}
		d.fail(at, path, "must be "+wanted(v.Type(), f)+", not "+kindOf(n), hint)
		return
	}
	secret := v.Type() == secretType
	t, err := d.text(n, path, secret)
	if errors.Is(err, errUnset) && d.away {
		d.miss(path, err.Error())
		return
	}
	if err == nil && (secret || f.is("credential")) {
		t.value, err = d.clean(t.value, path)
	}
	if err != nil {
		hint := ""
		if errors.Is(err, errVariable) {
			hint = "write $${ for the characters ${"
		}
		d.fail(at, path, err.Error(), hint)
		return
	}
	if problem, hint := d.assign(t, n, v, f, path); problem != "" {
		d.fail(at, path, problem, hint)
	}
	if _, ok := d.foreign[path]; ok && v.CanInt() {
		d.numbers[path] = v.Int()
	}
}

func (d *decoder) text(n ast.Node, path string, secret bool) (text, error) {
	raw, quoted := scalarText(n)
	e, err := expand(raw, d.env)
	if err != nil {
		return text{}, err
	}
	t := text{value: e.value, plain: !quoted && len(e.used) == 0, replace: len(e.used) > 0, shown: strconv.Quote(clip(raw))}
	if secret {
		t.shown = hidden
	}
	if len(e.used) > 0 {
		d.written[path] = raw
		d.foreign[path] = e
	}
	for _, v := range e.used {
		if !v.written {
			d.hide(v.value, v.reference())
		}
	}
	if secret {
		d.hide(e.value, hidden)
	}
	return t, nil
}

// assign sets v to what t means for its type. Problems show t.shown only, never t.value.
func (d *decoder) assign(t text, n ast.Node, v reflect.Value, f field, path string) (problem, hint string) {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if !isText(n) && !t.replace {
			return t.shown + " is " + kindOf(n) + ", not text", "put it in quotes"
		}
		if err := u.UnmarshalText([]byte(t.value)); err != nil {
			return t.shown + " is not allowed", ""
		}
		return "", ""
	}
	switch {
	case v.Type() == durationType:
		return assignDuration(t, v)
	case f.is("bytes"):
		return assignSize(t, v)
	}
	switch v.Kind() {
	case reflect.String:
		if !isText(n) && !f.is("scalar") || n.Type() == ast.BoolType {
			at := startOf(n) // taken as text all the same, so that whoever puts it in quotes does not meet the next mistake then
			d.unquoted[path] = Problem{Line: at.line, Column: at.column, Path: path, Message: t.shown + " is " + kindOf(n) + ", not text", Hint: "put it in quotes"}
		}
		if f.is("path") {
			t.value = d.absolute(t.value)
			d.files = append(d.files, namedFile{name: t.value, path: path, field: f})
			if d.away && path != "catalogue" {
				d.tryFile(path, t.value)
			}
		}
		v.SetString(t.value)
	case reflect.Bool:
		if t.value != "true" && t.value != "false" || !t.plain && !t.replace {
			return t.shown + " is neither true nor false", "write true or false, without quotes"
		}
		v.SetBool(t.value == "true")
	case reflect.Int:
		return assignInt(t, v)
	default:
		panic("BUG: no way to decode a " + v.Type().String())
	}
	return "", ""
}

// miss notes a setting that cannot be judged here. What is checked later about it is not reported.
func (d *decoder) miss(path, what string) {
	d.failed[path] = true
	d.absent = append(d.absent, Absent{path, what})
}

func (d *decoder) tryFile(path, name string) {
	f, err := os.Open(name)
	if err != nil {
		d.unread[path] = fmt.Sprintf("file %s cannot be read: %s", name, reason(err))
		return
	}
	f.Close()
}

func assignInt(t text, v reflect.Value) (problem, hint string) {
	n, err := strconv.ParseInt(t.value, 10, strconv.IntSize)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return t.shown + " is too large", ""
	case err != nil:
		return t.shown + " is not a whole number", "write digits only, such as 1000"
	case !t.plain && !t.replace:
		return t.shown + " is text, not a number", "remove the quotes"
	}
	v.SetInt(n)
	return "", ""
}

func assignDuration(t text, v reflect.Value) (problem, hint string) {
	duration, err := parseDuration(t.value)
	if err == nil {
		v.SetInt(int64(duration))
		return "", ""
	}
	switch {
	case errors.Is(err, errUnit) && !t.replace:
		hint = fmt.Sprintf("write %ss for seconds; the units are ms, s, m, h and d", t.value)
	case errors.Is(err, errUnit), errors.Is(err, errDuration):
		hint = "write a number and a unit: 500ms, 10s, 5m, 2h, 14d"
	}
	return t.shown + " " + err.Error(), hint
}

func assignSize(t text, v reflect.Value) (problem, hint string) {
	size, err := parseSize(t.value)
	if err == nil {
		v.SetInt(size)
		return "", ""
	}
	if errors.Is(err, errSize) {
		hint = "write a whole number and a unit: 512KiB, 1MiB, 20GiB, or KB, MB, GB for powers of ten"
	}
	return t.shown + " " + err.Error(), hint
}

// scalarText returns the text of a single value as it stands in the file, without its quotes.
func scalarText(n ast.Node) (raw string, quoted bool) {
	switch n := n.(type) {
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.StringNode:
		kind := n.Token.Type
		return n.Value, kind == token.SingleQuoteType || kind == token.DoubleQuoteType
	}
	return n.GetToken().Value, false
}

func isScalar(n ast.Node) bool {
	_, ok := n.(ast.ScalarNode)
	return ok && n.Type() != ast.NullType
}

func isText(n ast.Node) bool { return n.Type() == ast.StringType || n.Type() == ast.LiteralType }

func kindOf(n ast.Node) string {
	switch n.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "keys with values"
	case ast.SequenceType:
		return "a list"
	case ast.BoolType:
		return "true or false"
	case ast.StringType, ast.LiteralType:
		return "text"
	}
	return "a number"
}

func wanted(t reflect.Type, f field) string {
	switch {
	case t == durationType:
		return "a duration such as 10s"
	case f.is("bytes"):
		return "a size such as 1MiB"
	case t.Kind() == reflect.Int:
		return "a number"
	case t.Kind() == reflect.Bool:
		return "true or false"
	}
	return "text"
}

func (d *decoder) keyList(t reflect.Type) string {
	var names []string
	for _, f := range fieldsOf(t, d.kinds) {
		names = append(names, f.name)
	}
	return strings.Join(names, ", ")
}

// join appends a path relative to a struct to the struct's own path.
func join(path, relative string) string {
	if path == "" || relative == "" || strings.HasPrefix(relative, "[") {
		return path + relative
	}
	return path + "." + relative
}

// clip bounds what of a file is shown in a report.
func clip(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}
