package httpsink

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"ncs-relay/relay"
)

const maxShown = 4 << 10 // bytes of a body that Try shows

// Try sends one event as Send does and writes the exchange to w, secrets masked. It is for people: the form may change.
func (s *Sink) Try(ctx context.Context, a relay.Attempt, w io.Writer) error {
	c := s.client()
	defer s.release(c)
	x, err := s.post(ctx, c, a, true)
	if x.request != nil {
		fmt.Fprintf(w, "> POST %s\n", shownURL(x.request.URL))
		header := x.request.Header.Clone()
		for name := range s.cfg.masked() {
			header[http.CanonicalHeaderKey(name)] = []string{hidden}
		}
		c.writeMessage(w, "> ", header, a.Body)
	}
	if x.answer != nil {
		fmt.Fprintf(w, "< %s %s\n", x.answer.Proto, statusText(x.answer.StatusCode))
		c.writeMessage(w, "< ", x.answer.Header, x.body)
	}
	return err
}

// masked are the headers whose values are secrets, however short.
func (c *Config) masked() map[string]bool {
	names := map[string]bool{}
	for name := range c.Headers {
		names[name] = true
	}
	for name := range c.HeaderFiles {
		names[name] = true
	}
	if c.hasBearer() || c.BasicAuth != nil {
		names["Authorization"] = true
	}
	return names
}

// shownURL is as logs show URLs: some are credentials as a whole.
func shownURL(u *url.URL) string {
	return relay.MaskURL(u.String())
}

func (c *client) writeMessage(w io.Writer, mark string, header http.Header, body []byte) {
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, value := range header[name] {
			fmt.Fprintf(w, "%s%s: %s\n", mark, name, c.excerpt(value, maxShown))
		}
	}
	fmt.Fprintln(w, strings.TrimSpace(mark))
	text := c.mask(string(body)) // before it is cut, which would leave the half of a secret
	for line := range strings.Lines(text[:min(len(text), maxShown)]) {
		line = escaped(strings.TrimRight(line, "\r\n"), len(text)*4)
		fmt.Fprintf(w, "%s%s\n", mark, strings.ReplaceAll(line, `\"`, `"`))
	}
	if len(text) > maxShown {
		fmt.Fprintf(w, "%s...\n", mark)
	}
}
