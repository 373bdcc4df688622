package simulate

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	"ncs-relay/relay/ncs"
)

var sentAt = regexp.MustCompile(`"notifyMs"\s*:\s*(\d+)`)

// samplesOf is an entity of all documented events of a product, in the order of their types, with ids of their own. Unlike everything
// else that is played, these ids do not follow from the Config.
func samplesOf(product string, now time.Time) Entity {
	e := Entity{Name: "samples of " + product}
	samples := ncs.Samples()
	slices.SortStableFunc(samples, func(a, b ncs.Sample) int { return a.EventType - b.EventType })
	for _, s := range samples {
		if s.Info.Product != product {
			continue
		}
		body := s.Fresh(now)
		at := sentAt.FindSubmatchIndex(body)
		if at == nil {
			continue // the retired format
		}
		e.Events = append(e.Events, Event{ProductID: s.Info.ProductID, Type: s.EventType, head: body[:at[2]], tail: body[at[3]:]})
	}
	return e
}

// checkProducts reports a product of which no events are documented.
func checkProducts(products []string) error {
	for _, p := range products {
		if len(samplesOf(p, time.Now()).Events) == 0 {
			return fmt.Errorf("no events of product %q are documented", p)
		}
	}
	return nil
}
