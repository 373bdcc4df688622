package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"ncs-relay/config"
	"ncs-relay/relay/admin"
	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/kafkajournal"
	"ncs-relay/relay/journal/kafkajournal/member"
	"ncs-relay/relay/journal/kafkajournal/topics"
	"ncs-relay/relay/kafkaconn"
)

// sharedJournal is a journal on Kafka, with what this replica has of it.
type sharedJournal struct {
	*kafkajournal.Journal
	kafka  *kafkaJournal
	member *member.Member
	shards int
	name   string
	log    *slog.Logger
	wrong  atomic.Pointer[string] // what is wrong with the topics; nil: nothing
	mine   atomic.Pointer[topics.Meta]
	odd    map[string]bool // what was warned of the topics last; for judge only
}

// verifyInterval is how often the topics are looked at while the relay runs, and doubtInterval while it is not ready: an owner notices at
// once that a topic is another one, and what was wrong may be right again.
const (
	verifyInterval = time.Minute
	doubtInterval  = 2 * time.Second
)

// errForeignTopics says that the topics are not this relay's.
var errForeignTopics = errors.New("these topics are not this relay's")

func kafkaOpener(cfg *config.Config, start, adminAddr string, log *slog.Logger) journalOpener {
	return journalOpener{
		open: func(ctx context.Context) (journal.Opened, error) {
			return openShared(ctx, cfg, start, adminAddr, log)
		},
		lasting: func(err error) bool { return errors.Is(err, errForeignTopics) },
		key:     "path", where: "journal.kafka",
	}
}

// openShared opens the journal on Kafka. An error that is not in the chain of errForeignTopics may pass.
func openShared(ctx context.Context, cfg *config.Config, start, adminAddr string, log *slog.Logger) (*sharedJournal, error) {
	k := journalOf(cfg, log)
	j := &sharedJournal{kafka: k, name: cfg.ReplicaName(), log: log}
	j.mine.Store(&k.mine)
	state, err := j.prepare(ctx)
	if err != nil {
		k.cluster.Close()
		return nil, err
	}
	j.shards = state.Meta.Shards
	names := topics.NamesOf(k.Prefix)
	j.member = member.New(member.Options{
		Brokers: k.cluster, Group: names.Group, Topic: names.Inbox, Shards: int32(j.shards),
		Name: j.name, Start: start, Admin: cmp.Or(cfg.Admin.Advertise, adminAddr), Version: buildVersion(), Format: topics.Format,
		AskStart: askStart, Logger: log,
		Progress: func(shard int32) (int64, bool) { return j.Judged(shard) }, // it takes part only when the journal is open
	})
	j.Journal, err = kafkajournal.Open(ctx, kafkajournal.Options{
		Cluster: k.cluster, Prefix: k.Prefix, Shards: j.shards, Replica: j.name, Retention: cfg.Journal.Retention,
		Dead: cfg.DeadLetters, MaxRecord: int(k.InboxBytes()), Ownership: j.member, Logger: log,
		Same: func(ctx context.Context) error { return state.Same(ctx, k.cluster, k.Prefix) },
	})
	if err != nil {
		k.cluster.Close()
		return nil, err
	}
	j.KeepKeys(cfg.Dedup.MaxKeys, cfg.Dedup.Window)
	return j, nil
}

// prepare sees to it that the topics are there and as they must be.
func (j *sharedJournal) prepare(ctx context.Context) (state topics.State, err error) {
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	k := j.kafka
	checked, err := k.create(ctx, io.Discard)
	if err != nil {
		return state, err
	}
	if err := j.judge(checked.Problems, checked.State, false); err != nil || checked.State.Key != "" {
		return checked.State, err
	}
	state, _, err = topics.Agree(ctx, k.cluster, k.Prefix, k.mine.Of(k.Prefix, checked.Found))
	if err != nil {
		return state, err
	}
	return state, j.judge(state.Check(k.Prefix, k.mine, checked.Found), state, false)
}

// judge returns why the topics cannot be used, and warns, once, of what is odd. A relay that is running goes on with what has been, or will
// be, upgraded.
func (j *sharedJournal) judge(problems []topics.Problem, state topics.State, running bool) error {
	var errs []error
	odd := make(map[string]bool)
	for _, p := range problems {
		text := p.String()
		if p.Fatal && !(running && p.Upgradable) {
			errs = append(errs, errors.New(text))
			continue
		}
		if odd[text] = true; !j.odd[text] {
			j.log.Warn("a topic of the journal is not as it should be", "error", text)
		}
	}
	j.odd = odd
	if mine := j.kafka.mine; state.Key != "" && (state.Meta.Cluster != mine.Cluster || state.Meta.Format > mine.Format) {
		errs = append(errs, errForeignTopics)
	}
	return errors.Join(errs...)
}

// Run runs the journal and this replica's part in the group, until ctx ends or one of them cannot go on. It first gives up its
// shards, which the journal has to let go.
func (j *sharedJournal) Run(ctx context.Context) error {
	taking, leave := context.WithCancel(ctx)
	defer leave()
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	failed := make(chan error, 1)
	var running sync.WaitGroup
	running.Go(func() {
		err := j.Journal.Run(keeping)
		if keeping.Err() == nil {
			err = endedEarly(err)
		}
		leave()
		failed <- err
	})
	running.Go(func() { j.verify(taking) })
	running.Go(func() { j.showLags(taking) })
	err := j.member.Run(taking)
	leave()
	stop()
	running.Wait()
	return errors.Join(err, <-failed)
}

// Reconfigure takes up how copies are recognised; other settings need a restart.
func (j *sharedJournal) Reconfigure(cfg *config.Config) {
	mine := j.kafka.mine
	mine.OnConflict, mine.MaxKeys, mine.Window = cfg.Dedup.OnConflict, cfg.Dedup.MaxKeys, cfg.Dedup.Window.String()
	j.mine.Store(&mine)
}

// showLags shows what sinks are owed to Kafka's own tools.
func (j *sharedJournal) showLags(ctx context.Context) {
	names := topics.NamesOf(j.kafka.Prefix)
	lags := &member.Lags{Brokers: j.kafka.cluster, Prefix: names.SinkGroups, Topic: names.Events, Logger: j.log, Owed: func() (owed []member.Backlog) {
		for _, b := range j.Backlogs() {
			owed = append(owed, member.Backlog{Sink: b.Sink, Shard: b.Shard, End: b.End, Owed: int64(b.Pending)})
		}
		return owed
	}}
	lags.Run(ctx)
}

// verify looks at the topics now and then. While one is wrong nothing is taken: somebody has altered it. That counts when it was
// seen twice, since a broker that has just started may not know of all.
func (j *sharedJournal) verify(ctx context.Context) {
	doubtful := false
	for looked := time.Now(); kafkaconn.Pause(ctx, doubtInterval); {
		if !doubtful && time.Since(looked) < verifyInterval && j.Ready() == nil {
			continue
		}
		looked = time.Now()
		look, cancel := context.WithTimeout(ctx, clusterTime)
		checked, err := j.kafka.Verify(look, j.kafka.cluster, *j.mine.Load())
		cancel()
		if err != nil {
			continue // a cluster that is away is noticed by appends
		}
		err = j.judge(checked.Problems, checked.State, true)
		if doubtful = err != nil && !doubtful && j.wrong.Load() == nil; !doubtful {
			j.say(err)
		}
	}
}

// say takes what is wrong with the topics.
func (j *sharedJournal) say(err error) {
	before := j.wrong.Load()
	if err == nil {
		if j.wrong.Store(nil); before != nil {
			j.log.Info("the topics of the journal are as they must be again")
		}
		return
	}
	why := err.Error()
	if j.wrong.Store(&why); before == nil || *before != why {
		j.log.Error("the topics of the journal are not as they must be; notifications are answered 503", "error", err)
	}
}

// Ready returns why an append would probably fail now, or why no load is to be given to this replica. One that cannot join the others
// is not ready, so that a rolling restart does not end the next; later the group is not asked for: appends need none.
func (j *sharedJournal) Ready() error {
	if why := j.wrong.Load(); why != nil {
		return errors.New(*why)
	}
	return cmp.Or(j.Journal.Ready(), j.member.Admitted())
}

// Append takes nothing while the topics are wrong: it might not last there.
func (j *sharedJournal) Append(ctx context.Context, rec *journal.Record, done func(journal.Position, error)) error {
	if why := j.wrong.Load(); why != nil {
		return errors.New(*why)
	}
	return j.Journal.Append(ctx, rec, done)
}

// Close ends the journal and its connections.
func (j *sharedJournal) Close() error {
	err := j.Journal.Close()
	j.kafka.cluster.Close()
	return err
}

// Name is the name of this replica.
func (j *sharedJournal) Name() string { return j.name }

// Held are the shards that this replica can answer for.
func (j *sharedJournal) Held() []*journal.Shard {
	held, _ := j.Shards()
	return held
}

// Fleet are the replicas that share the journal.
func (j *sharedJournal) Fleet(ctx context.Context) (admin.Fleet, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	f := admin.Fleet{Self: j.name, Shards: j.shards}
	peers, err := j.member.Peers(ctx)
	for _, p := range peers {
		r := admin.Replica{Name: p.Name, Address: p.Admin, Shards: []uint32{}}
		for _, s := range p.Shards {
			r.Shards = append(r.Shards, uint32(s))
		}
		f.Replicas = append(f.Replicas, r)
	}
	return f, err
}

// sharing returns what knows the relays that share a journal; nil: none do.
func sharing(j journal.Opened) admin.Sharing {
	shared, _ := j.(admin.Sharing)
	return shared
}

// newStart names this start of the process.
func newStart() string { return rand.Text() }

// replicas calls the admin addresses of others.
var replicas = admin.NewClient()

// askStart asks the relay at an admin address which start of its process it is.
func askStart(ctx context.Context, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/livez", nil)
	if err != nil {
		return "", err
	}
	resp, err := replicas.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var alive admin.Alive
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&alive); err != nil {
		return "", fmt.Errorf("%s: %s: %w", address, resp.Status, err)
	}
	return alive.Start, nil
}
