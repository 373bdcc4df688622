package main

import (
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/admin"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/simulate"
)

// jsonOutputs is what each command with --json prints.
var jsonOutputs = map[string]any{
	"check":                check{},
	"status":               status{},
	"cluster status":       clusterStatus{},
	"sinks list":           gateway.SinkStatus{},
	"sinks move":           movedAnswer{},
	"sinks drop":           droppedAnswer{},
	"pending list":         gateway.Delivery{},
	"pending skip":         map[string]int{},
	"deadletters list":     gateway.DeadLetter{},
	"deadletters groups":   gateway.LetterGroup{}, // deadletters list --by-reason
	"deadletters show":     admin.Letter{},
	"deadletters replay":   gateway.ReplayResult{},
	"deadletters drop":     map[string]int{},
	"replay":               gateway.ReplayResult{},
	"replay list":          gateway.ReplayStatus{},
	"inspect":              struct{ Events []gateway.Life }{},
	"events":               eventType{},
	"events show":          eventType{},
	"route":                decision{},
	"simulate":             simulate.Tally{},
	"simulate conformance": simulate.Conformance{}, // simulate --conformance
	"journal verify":       reportJSON(&diskjournal.Report{}),
}

// A script that reads one command's JSON knows the words of the others': each name is in the one list of the document, and means
// there what it says. Whoever adds an output adds it here; whoever renames a member breaks the promise that the document gives.
func TestJSONHasOneVocabulary(t *testing.T) {
	t.Parallel()
	eachCommand(newRoot(), func(cmd *cobra.Command) {
		if cmd.Flags().Lookup("json") != nil {
			require.Contains(t, jsonOutputs, strings.TrimPrefix(cmd.CommandPath(), "ncs-relay "))
		}
	})
	used := map[string]bool{"matched": true, "skipped": true, "dropped": true} // of the maps, from the API
	for _, output := range jsonOutputs {
		addNames(used, reflect.TypeOf(output), nil)
	}
	text, err := os.ReadFile("README.md")
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "<!-- vocabulary -->")
	require.True(t, found)
	documented := map[string]bool{}
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		for _, word := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllStringSubmatch(cells[1], -1) {
			require.False(t, documented[word[1]], "%s stands twice", word[1])
			documented[word[1]] = true
		}
	}
	var undocumented, unused []string
	for name := range used {
		if !documented[name] {
			undocumented = append(undocumented, name)
		}
	}
	for name := range documented {
		if !used[name] {
			unused = append(unused, name)
		}
	}
	slices.Sort(undocumented)
	slices.Sort(unused)
	require.Empty(t, undocumented, "in JSON, and not in the list")
	require.Empty(t, unused, "in the list, and in no JSON")
	for _, synonym := range []string{"type", "name_of_event", "notice", "channel_name", "timestamp"} {
		require.NotContains(t, used, synonym)
	}
}

func eachCommand(cmd *cobra.Command, fn func(*cobra.Command)) {
	fn(cmd)
	for _, sub := range cmd.Commands() {
		eachCommand(sub, fn)
	}
}

// addNames adds the names of members in JSON of a type and of all in it.
func addNames(names map[string]bool, t reflect.Type, above []reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Array {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || slices.Contains(above, t) || !strings.HasPrefix(t.PkgPath(), "ncs-relay") && t.PkgPath() != "" && t.Name() != "" {
		return
	}
	if _, text := reflect.PointerTo(t).MethodByName("MarshalText"); text {
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() && !f.Anonymous, name == "-":
			continue
		case name != "":
			names[name] = true
		}
		addNames(names, f.Type, append(above, t))
	}
}
