package httpsink

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ncs-relay/relay"
)

const (
	maxRetryAfter = time.Hour
	maxExcerpt    = 200 // bytes of an answer that an error shows
)

// Answers of the 4xx range that may pass, although the event stays the same: credentials, routes and limits get mended
// by people. 409 is what the Idempotency-Key draft asks for while the first call is still being worked on, and our
// second call comes when the first took too long.
var passing = []int{
	http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusProxyAuthRequired,
	http.StatusRequestTimeout, http.StatusConflict, http.StatusGone, http.StatusMisdirectedRequest, http.StatusLocked,
	http.StatusTooEarly, http.StatusTooManyRequests,
}

// verdict turns an answer other than 2xx into the error that says what to do: the rest of 4xx is about this very event
// and permanent; everything else may pass, after the time the far side names, if it names one.
func (s *Sink) verdict(answer *http.Response, body []byte) error {
	err := fmt.Errorf("%s answered %s", s.host, s.describe(answer, body))
	status := answer.StatusCode
	if status/100 == 4 && !slices.Contains(passing, status) {
		return relay.Permanent(err)
	}
	if after := retryAfter(answer.Header.Get("Retry-After"), time.Now()); after > 0 {
		return &relay.RetryAfterError{Err: err, After: after}
	}
	return err
}

// describe does not use answer.Status, whose words are the far side's.
func (s *Sink) describe(answer *http.Response, body []byte) string {
	text := strings.TrimSpace(strconv.Itoa(answer.StatusCode) + " " + http.StatusText(answer.StatusCode))
	if answer.StatusCode/100 == 3 {
		text += " (redirects are not followed" + s.target(answer) + ")"
	}
	if len(body) > 0 {
		text += `: "` + s.excerpt(string(body)) + `"`
	}
	return text
}

// target says where a redirect points to, without what may be a credential.
func (s *Sink) target(answer *http.Response) string {
	u, err := answer.Location()
	if err != nil {
		return ""
	}
	return "; this one points to " + s.excerpt((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String())
}

// retryAfter reads both forms of Retry-After; 0 means none that makes sense.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return max(0, min(at.Sub(now), maxRetryAfter))
}

// excerpt makes the far side's words fit for logs: our credentials gone, control characters escaped, cut short.
func (s *Sink) excerpt(text string) string {
	text = s.redact.Replace(text)
	var b strings.Builder
	for len(text) > 0 {
		_, size := utf8.DecodeRuneInString(text)
		quoted := strconv.Quote(text[:size])
		piece := quoted[1 : len(quoted)-1]
		if b.Len()+len(piece) > maxExcerpt-len("...") && len(text) > size {
			return b.String() + "..."
		}
		b.WriteString(piece)
		text = text[size:]
	}
	return b.String()
}

// minSecret is the length from which a configured value is taken for a secret when the far side repeats it. Shorter
// ones ("1", "eu") protect nothing and would riddle every excerpt.
const minSecret = 4

// redactor knows all that we send and must not show: a far side may answer a refused call by repeating it.
func redactor(cfg Config, u *url.URL) *strings.Replacer {
	secrets := []string{cfg.BearerToken.Reveal(), u.RawQuery}
	for _, value := range cfg.Headers {
		secrets = append(secrets, value.Reveal())
	}
	for _, values := range u.Query() {
		secrets = append(secrets, values...)
	}
	if cfg.BasicAuth != nil {
		secrets = append(secrets, cfg.BasicAuth.Password.Reveal(), basicCredentials(cfg.BasicAuth))
	}
	if cfg.StandardWebhooks != nil {
		for _, secret := range cfg.StandardWebhooks.Secrets {
			secrets = append(secrets, strings.TrimPrefix(secret.Reveal(), "whsec_"))
		}
	}
	// The longest first: one secret may be the beginning of another.
	slices.SortFunc(secrets, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var pairs []string
	for _, secret := range secrets {
		if len(secret) >= minSecret {
			pairs = append(pairs, secret, "<secret>")
		}
	}
	return strings.NewReplacer(pairs...)
}
