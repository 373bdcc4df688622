package simulate_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/simulate"
)

const conformanceSecret = "secret-for-tests"

// receiver answers as spoil says, or as a right receiver does where that says 0.
func receiver(t *testing.T, spoil func(r *http.Request, body string, verified bool) (status int, answer string), products ...string) simulate.Conformance {
	t.Helper()
	verifier, err := ncs.NewVerifier([]string{conformanceSecret}, false)
	require.NoError(t, err)
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, verified := verifier.Verify(b, r.Header.Values(ncs.HeaderV1), r.Header.Values(ncs.HeaderV2))
		status, answer := spoil(r, string(b), verified)
		switch {
		case status == 0 && !verified:
			status = http.StatusUnauthorized
		case status == 0:
			status, answer = http.StatusOK, "{}"
		}
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	defer far.Close()
	found, err := simulate.Conform(t.Context(), simulate.Config{URL: far.URL, Secret: conformanceSecret, Products: products})
	require.NoError(t, err)
	return found
}

func failing(c simulate.Conformance) (musts, shoulds []simulate.Check) {
	for _, check := range c.Checks {
		switch {
		case check.OK:
		case check.Must:
			musts = append(musts, check)
		default:
			shoulds = append(shoulds, check)
		}
	}
	return musts, shoulds
}

func TestARightReceiverConforms(t *testing.T) {
	t.Parallel()
	found := receiver(t, func(*http.Request, string, bool) (int, string) { return 0, "" })
	require.True(t, found.OK, found.Checks)
	require.GreaterOrEqual(t, len(found.Checks), 11)
}

func TestConformanceSendsOnlyTheProductsItWasGiven(t *testing.T) {
	t.Parallel()
	found := receiver(t, func(_ *http.Request, body string, verified bool) (int, string) {
		if n, err := ncs.Builtin().Parse([]byte(body)); verified && err == nil && n.Info.Product != "" && n.Info.Product != "rtc" {
			t.Errorf("sent %s.%s", n.Info.Product, n.Info.Event)
		}
		return 0, ""
	}, "rtc")
	require.True(t, found.OK, found.Checks)
}

// Each fault is found by the check that is about it, which names event and answer and says what to do.
func TestConformanceNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	var seen sync.Map
	for name, test := range map[string]struct {
		spoil func(r *http.Request, body string, verified bool) (int, string)
		check string
		why   string
		do    string
	}{
		"does not verify": {func(*http.Request, string, bool) (int, string) { return 200, "{}" },
			"refuses what is not signed", `answered 200 "{}"`, "Agora-Signature-V2 over the raw bytes"},
		"refuses what it does not know": {func(_ *http.Request, body string, ok bool) (int, string) {
			if ok && !strings.Contains(body, `"productId":3`) {
				return 422, `{"error":"what is this"}`
			}
			return 0, ""
		}, "answers 200 to every documented event", `answered 422 "{\"error\":\"what is this\"}"`, "answer 200"},
		"plain text": {func(_ *http.Request, _ string, ok bool) (int, string) {
			if ok {
				return 200, "Ok"
			}
			return 0, ""
		}, "answers JSON", `answered 200 "Ok"`, "answer a small object"},
		"an error for copies": {func(_ *http.Request, body string, ok bool) (int, string) {
			id, _, _ := strings.Cut(body[strings.Index(body, `"noticeId":"`)+12:], `"`)
			if _, again := seen.LoadOrStore(id, true); ok && again {
				return 409, "{}"
			}
			return 0, ""
		}, "answers 200 to a copy", "answered 409", "a copy is no error"},
	} {
		found := receiver(t, test.spoil)
		require.False(t, found.OK, name)
		musts, _ := failing(found)
		hit := false
		for _, c := range musts {
			if strings.HasPrefix(c.Name, test.check) {
				hit = true
				require.Contains(t, c.Why, test.why, name)
				require.Contains(t, c.Hint, test.do, name)
			}
		}
		require.True(t, hit, "%s: %+v", name, musts)
	}
}

func TestAReceiverThatIgnoresNewsIsAskedToButMayNot(t *testing.T) {
	t.Parallel()
	found := receiver(t, func(_ *http.Request, body string, ok bool) (int, string) {
		if ok && strings.Contains(body, `"eventType":9999`) {
			return 400, "{}"
		}
		return 0, ""
	})
	require.True(t, found.OK)
	_, shoulds := failing(found)
	require.Len(t, shoulds, 1)
	require.Equal(t, "takes event types that it does not know", shoulds[0].Name)
}

// What failed is named with its event, the answer and what to do, also of other products.
func TestFailuresAreNamed(t *testing.T) {
	t.Parallel()
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if strings.Contains(string(b), `"eventType":102`) {
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprint(w, "no destroyed channels here")
		}
	}))
	defer far.Close()
	tally, err := simulate.Run(t.Context(), simulate.Config{URL: far.URL, Secret: conformanceSecret, Products: []string{"rtc", "media_push"}, RetryInterval: 1}, nil)
	require.NoError(t, err)
	require.Equal(t, 2, tally.Entities)
	require.Positive(t, tally.Unacknowledged)
	require.NotEmpty(t, tally.Failures)
	f := tally.Failures[0]
	require.Equal(t, []any{simulate.WrongGoodRefused, "rtc", "channel_destroy", 418, "no destroyed channels here"}, []any{f.What, f.Product, f.Event, f.Status, f.Answer})
	require.Contains(t, f.Hint, "answer 200")
	require.Equal(t, simulate.WrongGivenUp, tally.Failures[len(tally.Failures)-1].What)

	_, err = simulate.Run(t.Context(), simulate.Config{URL: far.URL, Secret: conformanceSecret, Products: []string{"nothing"}}, nil)
	require.ErrorContains(t, err, `no events of product "nothing" are documented`)
}
