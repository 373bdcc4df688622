package httpsink

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/problem"
)

// Verdicts on an answer.
const (
	deliver = "deliver" // it was taken
	retry   = "retry"   // the service's fault: it may be taken later
	dead    = "dead"    // the event's fault: it will never be taken
	pause   = "pause"   // nothing is to be sent until an operator says so
)

const (
	maxRetryAfter = time.Hour
	maxExcerpt    = 200 // bytes of an answer that an error shows
)

// Answers of the 4xx range that do not speak about the event: credentials, routes and limits get mended by people, and a
// wrong deployment must not empty a backlog into dead letters.
var passing = append([]int{
	http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusProxyAuthRequired,
	http.StatusRequestTimeout, http.StatusTooManyRequests,
}, ofAnotherCall...)

// Answers that may speak of another call with the same Idempotency-Key, one that is not done: 409 in the IETF's draft. Our call
// after a time-out meets them while the receiver still works on the first, which may fail and keep nothing.
var ofAnotherCall = []int{http.StatusConflict, http.StatusLocked, http.StatusTooEarly}

// warnVerdicts warns of verdicts that lose an event when the receiver means a call that is not done.
func warnVerdicts(verdicts map[string]string, report problem.Report) {
	for _, status := range slices.Sorted(maps.Keys(verdicts)) {
		code, _ := strconv.Atoi(status)
		if verdicts[status] == deliver && (status == "4xx" || slices.Contains(ofAnotherCall, code)) {
			report("verdicts["+status+"]", "loses an event when the receiver means that it is still working on an earlier call with the same Idempotency-Key, and that call fails",
				"let the receiver answer 2xx to what it has already; deliver is right only if it answers so after the event is kept")
		}
	}
}

var verdictKey = regexp.MustCompile(`^[2-5]([0-9]{2}|xx)$`)

func checkVerdicts(verdicts map[string]string, report problem.Report) {
	for _, status := range slices.Sorted(maps.Keys(verdicts)) {
		path := "verdicts[" + status + "]"
		if !verdictKey.MatchString(status) {
			report(path, "is neither a status nor a class", `such as "404" or "5xx", from 200 to 599`)
		}
		if v := verdicts[status]; !slices.Contains([]string{deliver, retry, dead, pause}, v) {
			report(path, "unknown verdict %q", "use deliver, retry, dead or pause", v)
		}
	}
}

// configured is the verdict configured for the status, or else for its class, or else "".
func (s *Sink) configured(status int) string {
	if len(s.cfg.Verdicts) == 0 {
		return ""
	}
	return cmp.Or(s.cfg.Verdicts[strconv.Itoa(status)], s.cfg.Verdicts[strconv.Itoa(status/100)+"xx"])
}

// verdictOf is what was configured, or else the rule.
func (s *Sink) verdictOf(status int) string {
	if v := s.configured(status); v != "" {
		return v
	}
	switch {
	case status/100 == 2:
		return deliver
	case status == http.StatusGone:
		return pause
	case status/100 == 4 && !slices.Contains(passing, status):
		return dead
	}
	return retry
}

// verdict turns an answer into the error that says what to do; nil = delivered.
func (s *Sink) verdict(c *client, answer *http.Response, body []byte) error {
	verdict := s.verdictOf(answer.StatusCode)
	if verdict == deliver {
		return nil
	}
	err := relay.BecauseOfStatus(answer.StatusCode, fmt.Errorf("%s answered %s", s.host, c.describe(answer, body)))
	if verdict == dead && s.configured(answer.StatusCode) == "" && aboutTheKey(body) {
		verdict = retry
	}
	switch verdict {
	case dead:
		return relay.Permanent(err)
	case pause:
		return relay.Pause(err)
	}
	value := answer.Header.Get("Retry-After")
	after := retryAfter(value, time.Now())
	switch answer.StatusCode {
	case http.StatusTooManyRequests:
		return &relay.RetryAfterError{Err: err, After: max(after, leastWait), All: true}
	case http.StatusServiceUnavailable: // without Retry-After it may be about this event alone
		return &relay.RetryAfterError{Err: err, After: max(after, leastWait), All: value != ""}
	}
	if after > 0 {
		return &relay.RetryAfterError{Err: err, After: after}
	}
	return err
}

// leastWait follows a 429 or a 503, whatever it asks for.
const leastWait = time.Second

var (
	keyWords = []byte("idempoten")
	echo     = []byte("ncs-relay-event-id")
)

// aboutTheKey reports whether the words of an answer are about the Idempotency-Key and so about another call, not about the event.
// What only repeats our headers is not.
func aboutTheKey(body []byte) bool {
	body = bytes.ToLower(body)
	return bytes.Contains(body, keyWords) && !bytes.Contains(body, echo)
}

// replayed reports whether the receiver says that this is the stored answer of an earlier call. There is no standard name for the
// header; Idempotent-Replayed is the most common.
func replayed(h http.Header) bool {
	for name, values := range h {
		if strings.Contains(name, "Idempoten") && strings.Contains(name, "Repla") && !strings.EqualFold(values[0], "false") {
			return true
		}
	}
	return false
}

// describe does not use answer.Status, whose words are the far side's.
func (c *client) describe(answer *http.Response, body []byte) string {
	text := statusText(answer.StatusCode)
	if answer.StatusCode/100 == 3 {
		text += " (redirects are not followed" + c.redirectTo(answer) + ")"
	}
	if replayed(answer.Header) {
		text += " (says that it repeats the stored answer of an earlier call with this Idempotency-Key; a replay has a new key)"
	}
	if len(body) > 0 {
		text += `: "` + c.excerpt(string(body), maxExcerpt) + `"`
	}
	return text
}

func statusText(status int) string {
	return strings.TrimSpace(strconv.Itoa(status) + " " + http.StatusText(status))
}

// redirectTo says where a redirect points to, without what may be a credential.
func (c *client) redirectTo(answer *http.Response) string {
	u, err := answer.Location()
	if err != nil {
		return ""
	}
	return "; this one points to " + c.excerpt((&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String(), maxExcerpt)
}

var (
	plainSeconds = regexp.MustCompile(`^[0-9]+(\.[0-9]*)?$`)

	// Spellings of dates besides those of http.ParseTime. All are met; only the latter are legal.
	dateForms = []string{time.RFC1123Z, time.RFC1123, time.RFC3339, "2006-01-02T15:04:05", "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05"}
)

// retryAfter reads both forms of Retry-After, in spellings that are not legal too; 0 means none that makes sense. A date
// without a zone is in UTC.
func retryAfter(value string, now time.Time) time.Duration {
	if plainSeconds.MatchString(value) {
		seconds, _ := strconv.ParseFloat(value, 64) // infinite when it is out of range
		return time.Duration(min(seconds, maxRetryAfter.Seconds()) * float64(time.Second))
	}
	at, err := http.ParseTime(value)
	for _, form := range dateForms {
		if err == nil {
			break
		}
		at, err = time.Parse(form, value)
	}
	if err != nil {
		return 0
	}
	return max(0, min(at.Sub(now), maxRetryAfter))
}
