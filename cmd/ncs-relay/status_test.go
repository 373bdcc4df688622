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

// scripted is a relay whose admin API answers what it is told, by path.
func scripted(t *testing.T, answers map[string]string) (address string) {
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, path, _ := strings.Cut(r.URL.Path, "/api/v1/")
		w.Write([]byte(answers[path]))
	}))
	t.Cleanup(admin.Close)
	return admin.URL
}

// Of several replicas some may not answer: each command says so, and fails if something was not done.
func TestCommandsNameTheReplicasThatAreMissing(t *testing.T) {
	t.Parallel()
	const lost = `"unanswered":[{"replica":"r2","shards":[1,4],"error":"connection refused"},{"shards":[5],"error":"no replica has these shards at the moment"}]`
	const without = "this is without shards 1,4 of replica r2: connection refused\nthis is without shard 5: no replica has these shards at the moment\n"
	const undone = "not done in shards 1,4 of replica r2: connection refused; give the command again when somebody has them\n" +
		"not done in shard 5: no replica has these shards at the moment; give the command again when somebody has them\n"
	const unconfirmed = "not confirmed for shards 1,4 of replica r2: connection refused; it is stored, and counts there from when they follow\n" +
		"not confirmed for shard 5: no replica has these shards at the moment; it is stored, and counts there from when they follow\n"
	admin := scripted(t, map[string]string{
		"status": `{"version":"7.8.9",` + lost + `}`, "sinks": `{"sinks":[],` + lost + `}`, "pending": `{"pending":[],` + lost + `}`,
		"dead-letters": `{"dead_letters":[],` + lost + `}`, "dead-letters/groups": `{"groups":[],` + lost + `}`, "replays": `{"replays":[],` + lost + `}`,
		"inspect": `{"events":[],` + lost + `}`, "sinks/billing/pause": `{` + lost + `}`, "sinks/billing/resume": `{` + lost + `}`,
		"sinks/billing/drop": `{"dropped":3,` + lost + `}`, "pending/skip": `{"matched":3,"skipped":3,` + lost + `}`,
		"dead-letters/drop": `{"matched":3,"dropped":3,` + lost + `}`, "replays/7": `{` + lost + `}`,
	})
	for command, want := range map[string]struct {
		status    int
		out, errs string
	}{
		"status":                                  {exitOK, "WITHOUT shards 1,4 of replica r2: connection refused\n", without},
		"status --json":                           {exitOK, `"unanswered"`, without},
		"sinks list":                              {exitOK, "SINK", without},
		"pending list --json":                     {exitOK, "", without},
		"deadletters list":                        {exitOK, "SINK", without},
		"deadletters list --by-reason":            {exitOK, "COUNT", without},
		"replay list":                             {exitOK, "REPLAY", without},
		"sinks pause billing":                     {exitFailed, "sink billing: paused\n", unconfirmed},
		"sinks resume billing":                    {exitFailed, "sink billing: resumed\n", unconfirmed},
		"replay cancel 7":                         {exitFailed, "replay 7 cancelled\n", unconfirmed},
		"sinks drop billing --yes":                {exitFailed, "3 deliveries given up\n", without + undone},
		"pending skip --sink billing --all --yes": {exitFailed, "3 skipped\n", without + undone},
		"deadletters drop --all --yes --json":     {exitFailed, `"dropped": 3`, without + undone},
	} {
		var out, errs strings.Builder
		status := run(t.Context(), append(strings.Fields(command), "--admin", admin), strings.NewReader(""), &out, &errs)
		require.Equal(t, want.status, status, "%s: %s", command, errs.String())
		require.Equal(t, want.errs, errs.String(), command)
		require.Contains(t, out.String(), want.out, command)
	}
}

func TestStatusShowsTheReplicas(t *testing.T) {
	t.Parallel()
	show := func(hash string) string {
		admin := scripted(t, map[string]string{"status": `{"version":"7.8.9","config":{"generation":2,"hash":"aa"},"dedup_keys":12,"sinks":[],"unjudged":176,"unjudged_error":"no leader","replicas":[
			{"name":"r1","admin":"10.0.0.1:9464","shards":[0,2],"status":{"version":"7.8.9","config":{"generation":2,"hash":"aa"}}},
			{"name":"r2","admin":"10.0.0.2:9464","shards":[1],"status":{"version":"7.8.8","config":{"generation":1,"hash":"` + hash + `"},"journal":{"error":"shard 1: no log"}}},
			{"name":"r3","admin":"10.0.0.3:9464","shards":[3]}],
			"unanswered":[{"replica":"r3","shards":[3],"error":"connection refused"}]}`})
		var out, errs strings.Builder
		require.Equal(t, exitOK, run(t.Context(), []string{"status", "--admin", admin}, nil, &out, &errs), errs.String())
		return out.String()
	}
	out := show("bb")
	for _, line := range []string{
		"journal on Kafka, shared by 3 replicas; 12 events known to the one that was asked\n",
		"176 notifications are stored and not yet judged: what sinks are owed of them is not counted below\n",
		"MORE MAY BE STORED AND NOT JUDGED: no leader\n",
		"WITHOUT shard 3 of replica r3: connection refused\n",
		"REPLICA  ADMIN          SHARDS  VERSION  CONFIGURATION  JOURNAL\n",
		"r1       10.0.0.1:9464  0,2     7.8.9    2 (aa)         ok\n",
		"r2       10.0.0.2:9464  1       7.8.8    1 (bb)         shard 1: no log\n",
		"r3       10.0.0.3:9464  3       ?        ?              does not answer\n",
		"THE CONFIGURATIONS DIFFER",
	} {
		require.Contains(t, out, line)
	}
	require.NotContains(t, out, "segments")
	require.NotContains(t, show("aa"), "DIFFER")
}
