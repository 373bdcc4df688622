package ncs_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

// Whoever adds an event type says what it means, and each sample of it fits its schema, alone and in the document of all.
func TestEveryEventTypeIsExplainedAndItsSamplesFit(t *testing.T) {
	t.Parallel()
	all := compileSchema(t, ncs.SchemaOf(ncs.Builtin().Types()))
	published := 0
	for _, i := range ncs.Builtin().Types() {
		name := i.Product + "." + i.Event
		x := i.Explain()
		require.NotEmpty(t, x.Means, name)
		require.NotEmpty(t, x.Title, name)
		require.True(t, strings.HasPrefix(x.Page, "https://"), name)
		if len(x.Fields) > 0 {
			published++
		}
		seen := map[string]bool{}
		for _, f := range x.Fields {
			require.False(t, seen[f.Name], "%s has %s twice", name, f.Name)
			seen[f.Name] = true
			for _, kind := range f.Types {
				require.Contains(t, []string{"string", "integer", "number", "boolean", "array", "object", "map"}, kind, "%s %s", name, f.Name)
			}
		}
		valid := compileSchema(t, i.Schema().Document())
		for _, s := range ncs.Samples() {
			if s.Info == i {
				require.NoError(t, valid(s.Body()), s.Name)
				require.NoError(t, all(s.Body()), s.Name)
			}
		}
	}
	require.Equal(t, len(ncs.Builtin().Types())-7, published, "13, 34, 46 and 47 of recording, 6, 7 and 106 of Fusion CDN are not published")
}

// Each table of codes is explained beside a field of some type, so that no field of a table is spelled wrongly or left out.
func TestEveryCodeBelongsToAField(t *testing.T) {
	t.Parallel()
	published, shown := map[string]bool{}, map[string]bool{}
	for _, i := range ncs.Builtin().Types() {
		for _, c := range i.Codes() {
			published[i.Product+" "+c.Field] = true
		}
		for _, f := range i.Explain().Fields {
			for _, c := range f.Codes {
				shown[i.Product+" "+c.Field] = true
			}
		}
	}
	require.Equal(t, published, shown)
}

func TestSchemasTakeWhatIsNewAndRefuseWhatIsWrong(t *testing.T) {
	t.Parallel()
	valid := compileSchema(t, ncs.Builtin().Lookup(3, 31).Schema().Document())
	all := compileSchema(t, ncs.SchemaOf(ncs.Builtin().Types()))
	body := func(payload string) []byte {
		return []byte(`{"noticeId":"n","productId":3,"eventType":31,"notifyMs":1,"new":{},"payload":` + payload + `}`)
	}
	const common = `"cname":"c","uid":"1","sid":"s","sequence":1,"sendts":1,"serviceType":2,"new":1,`
	good := body(`{` + common + `"details":{"msgName":"uploaded","status":7,"new":[1],"fileList":[{"fileName":"a","trackType":"smell","uid":"0","mixedAllUser":true,"isPlayable":true,"sliceStartTime":1,"new":1}]}}`)
	require.NoError(t, valid(good))
	for what, wrong := range map[string][]byte{
		"a file list that is text":   body(`{` + common + `"details":{"msgName":"uploaded","status":0,"fileList":"a.m3u8"}}`),
		"a uid that is a number":     body(strings.Replace(`{`+common+`"details":{"msgName":"uploaded","status":0}}`, `"uid":"1"`, `"uid":1`, 1)),
		"no details":                 body(`{"cname":"c","uid":"1","sid":"s","sequence":1,"sendts":1,"serviceType":2}`),
		"a file without its name":    body(`{` + common + `"details":{"msgName":"uploaded","status":0,"fileList":[{"trackType":"audio"}]}}`),
		"no id":                      []byte(strings.Replace(string(good), `"noticeId":"n",`, ``, 1)),
		"status that is half a code": body(`{` + common + `"details":{"msgName":"uploaded","status":0.5}}`),
	} {
		require.Error(t, valid(wrong), what)
		require.Error(t, all(wrong), what)
	}
	require.Error(t, valid([]byte(strings.Replace(string(good), `"eventType":31`, `"eventType":32`, 1))), "another type")
	require.NoError(t, all([]byte(`{"noticeId":"n","productId":99,"eventType":1,"payload":{}}`)), "a product of tomorrow")
}

func compileSchema(t testing.TB, s *ncs.Schema) func(body []byte) error {
	t.Helper()
	text, err := json.Marshal(s)
	require.NoError(t, err)
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	require.NoError(t, c.AddResource("schema.json", document))
	compiled, err := c.Compile("schema.json")
	require.NoError(t, err)
	return func(body []byte) error {
		value, err := jsonschema.UnmarshalJSON(strings.NewReader(string(body)))
		require.NoError(t, err)
		return compiled.Validate(value)
	}
}

// EVENTS.md is what events.yaml, the tables of codes and the samples say, for people.
func TestEventsPage(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`# Events of Agora's notification service

What is published of each event type, and what samples show. Made by ` + "`go test ./relay/ncs -run TestEventsPage -update`" + ` from
[events.yaml](events.yaml), the tables of codes and the [samples](samples). ` + "`ncs-relay events show EVENT`" + ` says the same, with all
samples and what they state; ` + "`ncs-relay events schema`" + ` as JSON Schema.

A type with ? is not in every event. *Read off a sample* means that the field is in a sample and in no list of fields here. Agora writes
Number; integer stands here where only whole numbers make sense. Where no more than the name of an event is published, its meaning is
the name in words.

- [every event](#every-event)
`)
	for _, p := range ncs.Builtin().Products() {
		fmt.Fprintf(&b, "- [%s](#%s)\n", p.Name, p.Name)
	}
	b.WriteString("\n## Every event\n\n")
	writeFields(&b, ncs.EnvelopeFields())
	writeNotes(&b, ncs.EnvelopeNotes())
	for _, p := range ncs.Builtin().Products() {
		writeProduct(&b, p)
	}
	golden(t, "EVENTS.md", b.String())
}

func writeProduct(b *strings.Builder, p ncs.Product) {
	fmt.Fprintf(b, "\n## %s\n", p.Name)
	types := slices.DeleteFunc(ncs.Builtin().Types(), func(i ncs.Info) bool { return i.ProductID != p.ID })
	if len(types) == 0 {
		fmt.Fprintf(b, "\nProduct %d. No event type is published.\n", p.ID)
		return
	}
	x := types[0].Explain()
	fmt.Fprintf(b, "\n%s, product %d. Fields of all events, if nothing else is said:\n\n", x.Title, p.ID)
	writeFields(b, slices.DeleteFunc(x.Fields, func(f ncs.Field) bool { return !f.Common }))
	writeNotes(b, x.ProductNotes)
	for _, i := range types {
		writeEventType(b, i)
	}
}

func writeEventType(b *strings.Builder, i ncs.Info) {
	x := i.Explain()
	fmt.Fprintf(b, "\n### %s.%s\n\n%s [Agora's page](%s). Type %d, category `%s`.",
		i.Product, i.Event, strings.TrimSpace(x.Means+" "+x.When), x.Page, i.EventType, i.Category)
	own := slices.DeleteFunc(slices.Clone(x.Fields), func(f ncs.Field) bool { return f.Common })
	switch {
	case len(x.Fields) == 0:
		b.WriteString(" Its payload is not published.\n")
	case len(own) == 0:
		b.WriteString(" No more fields.\n")
	case len(own) == len(x.Fields):
		b.WriteString(" Fields, without those of the other events:\n\n")
		writeFields(b, own)
	default:
		b.WriteString(" More fields:\n\n")
		writeFields(b, own)
	}
	writeNotes(b, x.Notes)
	if s, ok := i.Sample(); ok {
		fmt.Fprintf(b, "\n```json\n%s\n```\n", s.Body())
	}
}

func writeFields(b *strings.Builder, fields []ncs.Field) {
	b.WriteString("| Field | Type | Meaning |\n|---|---|---|\n")
	for _, f := range fields {
		kind := strings.Join(f.Types, " or ")
		if f.Sometimes {
			kind += " ?"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", f.Name, kind, strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`).Replace(f.Describe()))
	}
}

func writeNotes(b *strings.Builder, notes []string) {
	if len(notes) > 0 {
		b.WriteString("\n")
	}
	for _, n := range notes {
		fmt.Fprintf(b, "- %s\n", n)
	}
}
