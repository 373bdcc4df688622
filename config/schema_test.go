package config

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/problem"
	"ncs-relay/sinks"
)

// TestSchema checks that schema.json belongs to the structs as they are.
func TestSchema(t *testing.T) {
	t.Parallel()
	g := schemaGenerator{comments: map[string]string{}, read: map[string]bool{}}
	root := g.of(t, reflect.TypeFor[Config](), field{})
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "ncs-relay configuration"
	want, err := json.MarshalIndent(root, "", "  ")
	require.NoError(t, err)
	golden(t, "schema.json", string(want)+"\n")
	for key := range extra {
		require.True(t, g.read[key], "extra names a setting that is not there: %s", key)
	}
}

// TestSchemaAgreesWithDecoder validates the files of testdata: what loads is valid, and what is wrong in a way that a
// schema can express is not.
func TestSchemaAgreesWithDecoder(t *testing.T) {
	t.Parallel()
	valid := compileSchema(t)
	for file, want := range map[string]bool{
		"good_complete.yaml": true, "good_smallest.yaml": true, "good_variables.yaml": true, "good_warnings.yaml": true, "good_kafka_journal.yaml": true,
		"bad_five.yaml": false, "bad_types.yaml": false, "bad_unknown_keys.yaml": false, "bad_sections_empty.yaml": false,
	} {
		data, err := os.ReadFile(filepath.Join("testdata", file))
		require.NoError(t, err)
		require.Equal(t, want, valid(data) == nil, "%s: %v", file, valid(data))
	}
}

func TestSchemaOfSingleSettings(t *testing.T) {
	t.Parallel()
	valid := compileSchema(t)
	base := "sources: [{name: a, path: /a, secrets: [0123456789abcdef]}]\n"
	for _, setting := range []string{
		"dedup: {window: 14d}", "dedup: {window: 0}", "dedup: {window: 1d12h}", "dedup: {window: '${W:-1h}'}",
		"dedup: {max_keys: '${K}'}", "dedup: {max_keys: 5}", "journal: {max_size: 4GiB}", "journal: {max_size: 512}",
		"journal: {max_size: '${S}'}", "log: {level: '${L}'}", "dedup: {on_conflict: drop}",
		"sinks: [{name: b, propagate_trace: '${P}', file: {path: x}}]",
		"sinks: [{name: b, file: {path: x}}]\nroutes: [{match: {event: uploaded, service_type: 2}, to: [b]}]",
	} {
		require.NoError(t, valid([]byte(base+setting)), setting)
	}
	for _, setting := range []string{
		"dedup: {window: 14}", "dedup: {window: 10 s}", "dedup: {max_keys: many}", "dedup: {max_key: 1}", "journal: {max_size: 4G}",
		"log: {level: loud}", "dedup: {on_conflict: keep}", "sinks: [{name: b}]", "sinks: [{name: B, file: {path: x}}]",
		"sinks: [{name: b, file: {path: x}, http: {url: 'https://a'}}]", "sinks: [{name: b, http: {}}]", "routes: [{}]",
		"tls: {cert_file: x}", "health_path: healthz", "sources: []",
	} {
		base := base
		if strings.HasPrefix(setting, "sources") {
			base = ""
		}
		require.Error(t, valid([]byte(base+setting)), setting)
	}
}

func compileSchema(t *testing.T) func(yaml []byte) error {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(Schema())))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", document))
	compiled, err := c.Compile("schema.json")
	require.NoError(t, err)
	return func(data []byte) error {
		asJSON, err := yaml.YAMLToJSON(data)
		if err != nil {
			return err
		}
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(asJSON)))
		require.NoError(t, err)
		return compiled.Validate(value)
	}
}

type object = map[string]any

// A value with a variable in it is text, whatever the setting is.
var variableSchema = object{"type": "string", "pattern": `\$\{`}

func orVariable(o object) object { return object{"anyOf": []any{o, variableSchema}} }

const namePattern = `^[a-z0-9][a-z0-9_.-]{0,62}$`

// extra is what the structs do not say in their types.
var extra = map[string]object{
	"config.Config":             {"required": []any{"sources"}},
	"config.Config.sources":     {"minItems": 1},
	"config.TLS":                {"required": []any{"cert_file", "key_file"}},
	"config.Config.health_path": orVariable(object{"type": "string", "pattern": "^/"}),
	"ingress.SourceConfig": {"required": []any{"name", "path"},
		"anyOf": []any{object{"required": []any{"secrets"}}, object{"required": []any{"secret_files"}}}},
	"ingress.SourceConfig.name":       orVariable(object{"type": "string", "pattern": namePattern}),
	"ingress.SourceConfig.path":       orVariable(object{"type": "string", "pattern": "^/"}),
	"ingress.SourceConfig.signature":  orVariable(object{"enum": []any{"v2", "any"}}),
	"ingress.DedupConfig.on_conflict": orVariable(object{"enum": []any{"deliver", "drop"}}),
	"telemetry.LogConfig.level":       orVariable(object{"enum": []any{"debug", "info", "warn", "error"}}),
	"telemetry.LogConfig.format":      orVariable(object{"enum": []any{"auto", "json", "text"}}),
	"sinks.Config":                    {"required": []any{"name"}},
	"sinks.Config.name":               orVariable(object{"type": "string", "pattern": namePattern}),
	"sinks.Config.order":              orVariable(object{"enum": []any{"entity", "none"}}),
	"httpsink.Config.verdicts": {"additionalProperties": orVariable(object{"enum": []any{"deliver", "retry", "dead", "pause"}}),
		"propertyNames": object{"pattern": "^[2-5]([0-9]{2}|xx)$"}},
	"route.RuleConfig":    {"required": []any{"to"}},
	"route.RuleConfig.to": {"minItems": 1},
}

// schemaGenerator makes a schema of a struct in the way the decoder reads it.
type schemaGenerator struct {
	comments map[string]string // of types and fields, by "package.Type" and "package.Type.Field"
	read     map[string]bool   // keys that extra may have; packages whose comments are read
}

func (g *schemaGenerator) of(t *testing.T, typ reflect.Type, f field) object {
	switch {
	case typ.Kind() == reflect.Pointer:
		return g.of(t, typ.Elem(), f)
	case typ == durationType:
		return object{"anyOf": []any{
			object{"type": "string", "pattern": `^(0|(\d+d)?(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))*)$`, "minLength": 1},
			object{"const": 0}, variableSchema}}
	case f.is("bytes"):
		return object{"anyOf": []any{object{"type": "integer", "minimum": 0},
			object{"type": "string", "pattern": `^\d+([KMGT]i?B|B)?$`}, variableSchema}}
	case isSection(typ):
		return g.section(t, typ)
	}
	switch typ.Kind() {
	case reflect.Map:
		return object{"type": "object", "additionalProperties": g.of(t, typ.Elem(), field{})}
	case reflect.Slice:
		item := g.of(t, typ.Elem(), f)
		list := object{"type": "array", "items": item}
		if f.is("scalar") {
			return object{"anyOf": []any{list, item}}
		}
		return list
	case reflect.Bool:
		return orVariable(object{"type": "boolean"})
	case reflect.Int:
		return orVariable(object{"type": "integer"})
	}
	if f.is("scalar") {
		return object{"type": []any{"string", "number"}}
	}
	return object{"type": "string"}
}

func (g *schemaGenerator) section(t *testing.T, typ reflect.Type) object {
	g.readComments(t, typ)
	defaults := reflect.New(typ)
	if d, ok := defaults.Interface().(interface{ SetDefaults() }); ok {
		d.SetDefaults()
	}
	properties := object{}
	var kinds []any
	for _, f := range fieldsOf(typ, sinks.Kinds) {
		sf := typ.Field(f.index)
		p := g.of(t, f.typ, f)
		if sf.Type == kindType {
			kinds = append(kinds, object{"required": []any{f.name}})
		}
		key := typ.String() + "." + f.name
		g.read[key] = true
		p = with(p, extra[key])
		if comment := g.comments[typ.String()+"."+sf.Name]; comment != "" {
			p["description"] = comment
		}
		if value := f.in(defaults.Elem()); !value.IsZero() && !isSection(f.typ) {
			p["default"] = printed(value, f)
		}
		properties[f.name] = p
	}
	g.read[typ.String()] = true
	section := object{"type": "object", "additionalProperties": false, "properties": properties}
	if comment := g.comments[typ.String()]; comment != "" {
		section["description"] = comment
	}
	if kinds != nil {
		section["oneOf"] = kinds
	}
	if k, ok := defaults.Interface().(sinks.Kind); ok {
		if required := missing(k, properties); required != nil {
			section["required"] = required
		}
	}
	return with(section, extra[typ.String()])
}

// missing are the settings of a kind of sink that are wrong when they are not given.
func missing(k sinks.Kind, settings object) (names []any) {
	k.(interface{ Check(problem.Report) }).Check(func(path, _, _ string, _ ...any) {
		if settings[path] != nil {
			names = append(names, path)
		}
	})
	return names
}

// with adds to a schema; one that says anything of the value itself takes its place.
func with(schema, more object) object {
	if _, whole := more["anyOf"]; whole && schema["type"] == "string" {
		schema = object{}
	}
	for key, value := range more {
		schema[key] = value
	}
	return schema
}

// readComments reads the comments of the package of a type from its source.
func (g *schemaGenerator) readComments(t *testing.T, typ reflect.Type) {
	t.Helper()
	pkg := strings.TrimPrefix(typ.PkgPath(), "ncs-relay/")
	if g.read[pkg] {
		return
	}
	g.read[pkg] = true
	files, err := filepath.Glob(filepath.Join("..", pkg, "*.go"))
	require.NoError(t, err)
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		require.NoError(t, err)
		ast.Inspect(tree, func(n ast.Node) bool {
			if d, ok := n.(*ast.GenDecl); ok && d.Tok == token.TYPE {
				g.typeComments(filepath.Base(pkg), d)
			}
			return true
		})
	}
}

func (g *schemaGenerator) typeComments(pkg string, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		ts := spec.(*ast.TypeSpec)
		st, ok := ts.Type.(*ast.StructType)
		if !ok {
			continue
		}
		name := pkg + "." + ts.Name.Name
		g.comments[name] = oneLine(d.Doc)
		for _, f := range st.Fields.List {
			for _, fieldName := range f.Names {
				g.comments[name+"."+fieldName.Name] = oneLine(f.Comment)
			}
		}
	}
}

func oneLine(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
