package ingress

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/route"
)

// Intake says what a source makes of the body of a verified call. It keeps nothing and looks nothing up, so that what
// `route` says of a body is what serve does.
type Intake struct {
	source    string
	products  []int // ids; none = all
	catalogue *ncs.Catalogue
	test      *route.Expr // nil = none
}

// NewIntake makes the Intake of a source.
func NewIntake(c SourceConfig, catalogue *ncs.Catalogue) (*Intake, error) {
	in := &Intake{source: c.Name, catalogue: catalogue}
	for _, name := range c.Products {
		id, err := catalogue.ParseProduct(name)
		if err != nil {
			return nil, fmt.Errorf("products: %w", err)
		}
		in.products = append(in.products, id)
	}
	if c.TestMatch != "" {
		var err error
		if in.test, err = route.CompileExpr(c.TestMatch); err != nil {
			return nil, fmt.Errorf("test_match: %w", err)
		}
	}
	return in, nil
}

// Reading is what a body was understood to be.
type Reading struct {
	Notification *ncs.Notification // nil when the body is quarantined
	Identity     ncs.Identity      // of the event; of the bytes when the body is quarantined
	Quarantine   string            // the reason, from a bounded set; "" = the body is understood
	Detail       string            // more on the reason, for people; may quote a little of the body
	Test         bool              // the health test of Agora's Console: answered, and nothing else
}

// Read parses a body.
func (in *Intake) Read(body []byte) Reading {
	n, err := in.catalogue.Parse(body)
	var malformed *ncs.MalformedError
	switch {
	case errors.As(err, &malformed):
		return in.quarantined(body, malformed.Reason, malformed.Detail)
	case err != nil:
		return in.quarantined(body, ncs.ReasonNotJSON, err.Error())
	case len(in.products) > 0 && !slices.Contains(in.products, n.Info.ProductID):
		return in.quarantined(body, reasonProduct, "the source does not take "+n.Info.Product)
	}
	return Reading{Notification: n, Identity: n.Identify(in.source), Test: in.isTest(n)}
}

func (in *Intake) quarantined(body []byte, reason, detail string) Reading {
	return Reading{Identity: ncs.IdentifyOpaque(in.source, body), Quarantine: reason, Detail: detail}
}

func (in *Intake) isTest(n *ncs.Notification) bool {
	if n.IsTest() || in.test == nil {
		return n.IsTest()
	}
	matched, err := in.test.Eval(n, in.source, time.Time{})
	return err == nil && matched
}
