package ncs

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

//go:embed samples/*.json
var sampleFiles embed.FS

// Sample is a body as Agora documents it, or as it was captured, with ids and names made anonymous.
type Sample struct {
	Name string // product id, event type and event, such as "3-31-uploaded-webpage"
	*Notification
}

// Samples lists a body or more of each event type whose payload is published, ordered by name. They are shared: change none.
func Samples() []Sample { return slices.Clone(readSamples()) }

var readSamples = sync.OnceValue(func() []Sample {
	var all []Sample
	names, _ := fs.Glob(sampleFiles, "samples/*.json")
	for _, name := range names {
		body, err := sampleFiles.ReadFile(name)
		if err == nil {
			var n *Notification
			if n, err = builtin.Parse(body); err == nil {
				all = append(all, Sample{strings.TrimSuffix(strings.TrimPrefix(name, "samples/"), ".json"), n})
			}
		}
		if err != nil {
			panic("BUG: " + name + ": " + err.Error()) // a test reads them all
		}
	}
	return all
})

// Body is what Agora would send.
func (s Sample) Body() []byte { return s.body }
