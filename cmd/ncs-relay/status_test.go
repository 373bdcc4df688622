package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// --watch goes on while the relay does not answer, and ends without an error when it is interrupted.
func TestStatusIsWatched(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	asked := 0
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch asked++; asked {
		case 2:
			http.Error(w, `{"reason":"starting: the journal is being opened"}`, http.StatusServiceUnavailable)
			return
		case 4:
			interrupt()
		}
		w.Write([]byte(`{"version":"7.8.9","config":{"generation":1},"sinks":[{"name":"billing","state":"delivering","pending":3}]}`))
	}))
	defer admin.Close()
	var out, errs strings.Builder
	require.Equal(t, exitOK, run(ctx, []string{"status", "--watch", "--interval", "100ms", "--admin", admin.URL}, nil, &out, &errs), errs.String())
	require.Equal(t, 2, strings.Count(out.String(), "ncs-relay 7.8.9"))
	require.Equal(t, 1, strings.Count(out.String(), "starting: the journal is being opened"))

	require.Equal(t, exitFailed, run(t.Context(), []string{"status", "--watch", "--admin", "127.0.0.1:1"}, nil, &out, &errs))
	require.Equal(t, exitUsage, run(t.Context(), []string{"status", "--watch", "--json"}, nil, &out, &errs))
	require.Equal(t, exitUsage, run(t.Context(), []string{"status", "--watch", "--interval", "1ms"}, nil, &out, &errs))
}
