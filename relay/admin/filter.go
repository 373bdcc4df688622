package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"ncs-relay/relay"
	"ncs-relay/relay/gateway"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/ncs"
)

const (
	defaultLimit = 100
	maxLimit     = 1000
)

// requestError is a mistake of the caller: 400.
type requestError struct{ problem string }

func (e *requestError) Error() string { return e.problem }

func badf(format string, args ...any) error { return &requestError{fmt.Sprintf(format, args...)} }

// filterInput is a filter as it is sent, in a query or in a body. A field that is there and empty is a mistake: it is
// what a script with an unset variable sends, and taking it for "everything" would drop what was meant to stay.
type filterInput struct {
	Sink    *string `json:"sink"`
	Source  *string `json:"source"`
	Product *string `json:"product"`
	Event   *string `json:"event"`
	Entity  *string `json:"entity"`
	ID      *string `json:"id"`
	Reason  *string `json:"reason"`
	Since   *string `json:"since"`
	Until   *string `json:"until"`
}

// isEmpty reports whether the filter selects everything.
func (in filterInput) isEmpty() bool { return in == filterInput{} }

func (in filterInput) filter(c *ncs.Catalogue) (f relay.Filter, err error) {
	take := func(name string, from *string, parse func(string) error) {
		switch {
		case err != nil || from == nil:
		case *from == "":
			err = badf("%s: empty; leave it out to select everything", name)
		default:
			if problem := parse(*from); problem != nil {
				err = badf("%s: %s", name, problem)
			}
		}
	}
	text := func(to *string) func(string) error {
		return func(s string) error { *to = s; return nil }
	}
	moment := func(to *time.Time) func(string) error {
		return func(s string) (err error) {
			if *to, err = time.Parse(time.RFC3339, s); err != nil {
				err = fmt.Errorf("%q is not a time; want RFC 3339, such as 2006-01-02T15:04:05Z", s)
			}
			return err
		}
	}
	take("sink", in.Sink, text(&f.Sink))
	take("source", in.Source, text(&f.Source))
	take("product", in.Product, func(s string) error {
		f.Product = s
		_, err := c.ParseProduct(s)
		return err
	})
	take("event", in.Event, func(s string) error {
		f.Event = s
		var products []string
		if f.Product != "" {
			products = []string{f.Product}
		}
		_, err := c.ParseEvent(products, s)
		return err
	})
	take("entity", in.Entity, text(&f.Entity))
	take("id", in.ID, func(s string) error {
		id, err := ncs.ParseEventID(s)
		f.ID = &id
		return err
	})
	take("reason", in.Reason, text(&f.Reason))
	take("since", in.Since, moment(&f.Since))
	take("until", in.Until, moment(&f.Until))
	if err == nil && in.Since != nil && in.Until != nil && !f.Since.Before(f.Until) {
		err = badf("until: %s is not after since", *in.Until)
	}
	return f, err
}

// queryInput is what a list is asked with.
type queryInput struct {
	filterInput
	Limit  *string `json:"limit"`
	Cursor *string `json:"cursor"`
	Body   *string `json:"body"`
}

// list is what a listing method of the gateway wants.
type list struct {
	filter relay.Filter
	page   gateway.Page
	limit  int
	body   bool // is asked for
}

// readList reads the query of a request for a list. It takes the parameters named.
func (s *Server) readList(r *http.Request, names ...string) (l list, err error) {
	var in queryInput
	if err := readQuery(r, &in, names...); err != nil {
		return l, err
	}
	if l.filter, err = in.filter(s.options.Gateway.Catalogue()); err != nil {
		return l, err
	}
	l.limit = defaultLimit
	if in.Limit != nil {
		if l.limit, err = strconv.Atoi(*in.Limit); err != nil || l.limit < 1 || l.limit > maxLimit {
			return l, badf("limit: %q is not a number from 1 to %d", *in.Limit, maxLimit)
		}
	}
	if in.Body != nil {
		if l.body = *in.Body == "true"; !l.body {
			return l, badf("body: %q is not true", *in.Body)
		}
	}
	if in.Cursor != nil {
		l.page, err = parseCursor(*in.Cursor)
	}
	return l, err
}

// readQuery takes the parameters named, each once, and no others.
func readQuery(r *http.Request, in *queryInput, names ...string) error {
	// URL.Query drops what it cannot read, and with it a part of the filter.
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return badf("query: %s", err)
	}
	members := make(map[string]string, len(values))
	for name, given := range values {
		switch {
		case !slices.Contains(names, name):
			return badf("%q: unknown parameter", name)
		case len(given) > 1:
			return badf("%s: given %d times", name, len(given))
		}
		members[name] = given[0]
	}
	object, err := json.Marshal(members)
	if err != nil {
		return badf("query: not UTF-8")
	}
	return decode(object, in)
}

// A cursor is a page as text: the sink, and the position after which the list goes on.
func cursor(p *gateway.Page) string {
	if p == nil {
		return ""
	}
	return p.Sink + "/" + p.After.String()
}

func parseCursor(s string) (gateway.Page, error) {
	sink, after, ok := strings.Cut(s, "/")
	position, err := journal.ParsePosition(after)
	if !ok || sink == "" || err != nil {
		return gateway.Page{}, badf("cursor: %q is not one; take the next of the answer before", s)
	}
	return gateway.Page{Sink: sink, After: position}, nil
}

// decode reads a body strictly: one JSON object, its members known, spelled exactly so, and each once. No body is an
// empty object.
func decode(body []byte, to any) error {
	if len(body) == 0 {
		return nil
	}
	err := json.Unmarshal(body, to, json.RejectUnknownMembers(true))
	var semantic *json.SemanticError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, json.ErrUnknownName) && errors.As(err, &semantic):
		return badf("%q: unknown member", semantic.JSONPointer.LastToken())
	case errors.As(err, &semantic) && semantic.JSONPointer == "":
		return badf("the body is not a JSON object")
	case errors.As(err, &semantic):
		return badf("%s: %s is not of the right type", semantic.JSONPointer.LastToken(), kindName(semantic))
	default:
		return badf("the body is not JSON: %s", strings.TrimPrefix(err.Error(), "jsontext: "))
	}
}

// kindName says what stands where something else should.
func kindName(e *json.SemanticError) string {
	if e.JSONKind == 0 {
		return "the value"
	}
	return "a " + e.JSONKind.String()
}
