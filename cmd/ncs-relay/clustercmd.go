package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/config"
	"ncs-relay/relay/journal/kafkajournal"
	"ncs-relay/relay/journal/kafkajournal/topics"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

func clusterCommand() *cobra.Command {
	return group("cluster", "Make, check and read the topics of a journal on Kafka", clusterInitCommand(), clusterCheckCommand(), clusterStatusCommand(), clusterConfirmCommand(), clusterUpgradeCommand())
}

// clusterTime bounds a command that asks the cluster: there may be several rounds over all shards.
const clusterTime = time.Minute

// kafkaJournal is the journal on Kafka of a configuration, seen from outside.
type kafkaJournal struct {
	topics.Options
	cfg     *config.Config
	mine    topics.Meta
	cluster *kafkaconn.Cluster
}

func journalOf(cfg *config.Config, log *slog.Logger) *kafkaJournal {
	return &kafkaJournal{cfg.Topics(), cfg, cfg.Meta(), cfg.Journal.Kafka.Dial(log)}
}

// clusterCommandOf makes a command that works on the journal of a configuration.
func clusterCommandOf(use, short, long string, run func(ctx context.Context, cmd *cobra.Command, j *kafkaJournal) error) *cobra.Command {
	var file string
	cmd := &cobra.Command{Use: use, Short: short, Long: long, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		cfg, report := loadConfig(file)
		if report.Err() != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), report)
			return errReported
		}
		if cfg.Journal.Kafka == nil {
			return fmt.Errorf("%s has no journal.kafka: its journal is in %s", file, cfg.DataDir)
		}
		j := journalOf(cfg, nil)
		defer j.cluster.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), clusterTime)
		defer cancel()
		return run(ctx, cmd, j)
	}}
	addConfigFlag(cmd, &file)
	return cmd
}

func clusterInitCommand() *cobra.Command {
	return clusterCommandOf("init", "Make the topics that are missing, and check all",
		`init makes the topics of the journal that do not exist, as journal.kafka.create_topics says, checks all of them, and writes
the constants that all replicas must share, if none are there. It never alters a topic, and may be run again at any time.`,
		func(ctx context.Context, cmd *cobra.Command, j *kafkaJournal) error {
			out := cmd.OutOrStdout()
			checked, err := j.create(ctx, out)
			if err != nil {
				return err
			}
			if !printProblems(out, cmd.ErrOrStderr(), checked.Problems) {
				return errReported
			}
			state := checked.State
			if state.Key == "" {
				var wrote bool
				if state, wrote, err = topics.Agree(ctx, j.cluster, j.Prefix, j.mine.Of(j.Prefix, checked.Found)); err != nil {
					return err
				}
				if wrote {
					fmt.Fprintf(out, "wrote what all replicas share to %s: cluster %s, format %d, %d shards\n", topics.NamesOf(j.Prefix).Control, state.Meta.Cluster, state.Meta.Format, state.Meta.Shards)
				} else if !printProblems(out, cmd.ErrOrStderr(), state.Check(j.Prefix, j.mine, checked.Found)) { // another was faster
					return errReported
				}
			}
			fmt.Fprintf(out, "the topics of cluster %s are ready: %d shards\n", state.Meta.Cluster, state.Meta.Shards)
			return nil
		})
}

// create makes the topics that are missing, if the configuration wants that, and says what was made; and returns what there is then. Of topics
// that are there, what would be another journal's stops it.
func (j *kafkaJournal) create(ctx context.Context, out io.Writer) (topics.Checked, error) {
	checked, err := j.Verify(ctx, j.cluster, j.mine)
	if err != nil || !checked.Missing(j.Prefix) || j.cfg.Journal.Kafka.CreateTopics == nil {
		return checked, err
	}
	if shards := checked.Found.Shards(j.Prefix); shards != 0 && shards != j.Shards {
		return checked, nil // which is said: the new ones would not go with those that are there
	}
	made, err := j.Create(ctx, j.cluster, checked.Found)
	for _, name := range made {
		fmt.Fprintf(out, "made topic %s\n", name)
	}
	if err != nil {
		return checked, err
	}
	return j.Verify(ctx, j.cluster, j.mine)
}

// printProblems says what is wrong and reports whether a relay would serve all the same.
func printProblems(out, errs io.Writer, problems []topics.Problem) bool {
	for _, p := range problems {
		if p.Fatal {
			fmt.Fprintln(errs, clean(p.String()))
		} else {
			fmt.Fprintf(out, "warning: %s\n", clean(p.String()))
		}
	}
	return len(topics.Fatal(problems)) == 0
}

func clusterCheckCommand() *cobra.Command {
	return clusterCommandOf("check", "Say everything that is wrong with the topics, and what to type", "",
		func(ctx context.Context, cmd *cobra.Command, j *kafkaJournal) error {
			problems, checked, err := j.all(ctx)
			if err != nil {
				return err
			}
			if !printProblems(cmd.OutOrStdout(), cmd.ErrOrStderr(), problems) {
				return errReported
			}
			if checked.State.Key == "" {
				return errors.New("nothing was written yet of what all replicas share: ncs-relay cluster init does, or the first replica that starts")
			}
			fmt.Fprintf(cmd.OutOrStdout(), "the topics of cluster %s are as they must be: %d shards\n", checked.State.Meta.Cluster, checked.State.Meta.Shards)
			return nil
		})
}

// all is everything that can be said of the topics and of the brokers.
func (j *kafkaJournal) all(ctx context.Context) ([]topics.Problem, topics.Checked, error) {
	checked, err := j.Verify(ctx, j.cluster, j.mine)
	if err != nil {
		return nil, checked, err
	}
	problems := checked.Problems
	for _, err := range j.cluster.TrySeeds(ctx) {
		problems = append(problems, topics.Problem{Found: err.Error(), Fatal: true})
	}
	return append(problems, topics.Advice(ctx, j.cluster)...), checked, nil
}

// journalTopics looks, for check --connect, at the topics of a journal on Kafka. Those that serve makes may be missing.
func journalTopics(ctx context.Context, cfg *config.Config, out io.Writer) (found findings) {
	const setting = "journal.kafka"
	ctx, cancel := context.WithTimeout(ctx, clusterTime)
	defer cancel()
	j := journalOf(cfg, nil)
	defer j.cluster.Close()
	problems, checked, err := j.all(ctx)
	if err != nil {
		found.add(setting, err)
		return found
	}
	missing := checked.Found.Missing(j.Prefix)
	if cfg.Journal.Kafka.CreateTopics != nil && len(missing) > 0 {
		problems = slices.DeleteFunc(problems, func(p topics.Problem) bool { return slices.Contains(missing, p.Topic) })
		fmt.Fprintf(out, "journal: topics that will be made: %s\n", joinWords(missing))
	}
	for _, p := range problems {
		found = append(found, finding{setting, errors.New(clean(p.String())), !p.Fatal})
	}
	if len(topics.Fatal(problems)) == 0 {
		fmt.Fprintln(out, "journal: the cluster answers, and the topics that are there are as they must be")
	}
	return found
}

func clusterStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := clusterCommandOf("status", "Show topics, replicas, and who has which shard", "",
		func(ctx context.Context, cmd *cobra.Command, j *kafkaJournal) error {
			s, err := j.status(ctx)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s)
			}
			return s.print(cmd.OutOrStdout())
		})
	addJSON(cmd, &asJSON)
	return cmd
}

// clusterStatus is what is known of a journal on Kafka without asking a replica.
type clusterStatus struct {
	Cluster  string           `json:"cluster"` // "" = nothing was written yet
	Prefix   string           `json:"prefix"`
	Format   int              `json:"format,omitempty"`
	Dedup    *clusterDedup    `json:"dedup,omitempty"`   // as all replicas share it
	Changes  int              `json:"changes,omitempty"` // of what all replicas share
	Topics   []clusterTopic   `json:"topics"`
	Replicas []clusterReplica `json:"replicas"`
	Unknown  string           `json:"replicas_unknown,omitempty"` // why the replicas are not known
	Shards   []clusterShard   `json:"shards"`
	Problems []string         `json:"problems,omitempty"`
}

type clusterDedup struct {
	OnConflict string `json:"on_conflict"`
	MaxKeys    int    `json:"max_keys"`
	Window     string `json:"window"`
}

type clusterTopic struct {
	Name       string `json:"name"`
	ID         string `json:"topic_id,omitempty"`
	Partitions int    `json:"partitions"` // 0 = it does not exist
	Replicas   int    `json:"replication"`
	Records    int64  `json:"records"` // at most: compaction leaves gaps
}

type clusterReplica struct {
	Name    string  `json:"name"`
	Admin   string  `json:"admin,omitempty"`
	Version string  `json:"version,omitempty"`
	Shards  []int32 `json:"shards"`
}

type clusterShard struct {
	Shard int32            `json:"shard"`
	Owner string           `json:"replica,omitempty"` // "" = none
	Epoch int64            `json:"epoch,omitempty"`
	Ends  map[string]int64 `json:"ends"` // by topic
}

func (j *kafkaJournal) status(ctx context.Context) (*clusterStatus, error) {
	checked, err := j.Verify(ctx, j.cluster, j.mine)
	if err != nil {
		return nil, err
	}
	meta := checked.State.Meta
	s := &clusterStatus{Cluster: meta.Cluster, Prefix: j.Prefix, Format: meta.Format, Changes: len(checked.State.Changes), Replicas: []clusterReplica{}, Shards: []clusterShard{}}
	if checked.State.Key != "" {
		s.Dedup = &clusterDedup{meta.OnConflict, meta.MaxKeys, meta.Window}
	}
	for _, p := range checked.Problems {
		s.Problems = append(s.Problems, p.String())
	}
	for shard := range int32(checked.Found.Shards(j.Prefix)) {
		s.Shards = append(s.Shards, clusterShard{Shard: shard, Epoch: checked.State.Epochs[shard].Number, Ends: make(map[string]int64)})
	}
	for _, name := range topics.NamesOf(j.Prefix).All() {
		if err := j.addTopic(ctx, s, name, checked.Found[name]); err != nil {
			return nil, err
		}
	}
	j.addReplicas(ctx, s)
	return s, nil
}

// addTopic adds a topic and the ends of its partitions.
func (j *kafkaJournal) addTopic(ctx context.Context, s *clusterStatus, name string, found topics.Topic) error {
	t := clusterTopic{Name: name, Partitions: found.Partitions, Replicas: found.Replicas}
	if found.Partitions > 0 {
		t.ID = hex.EncodeToString(found.ID[:])
		all := make([]int32, found.Partitions)
		for i := range all {
			all[i] = int32(i)
		}
		starts, err := kafkalog.Starts(ctx, j.cluster, name, all)
		if err != nil {
			return err
		}
		ends, err := kafkalog.Ends(ctx, j.cluster, name, all)
		if err != nil {
			return err
		}
		for partition, end := range ends {
			t.Records += end - starts[partition]
			if name != topics.NamesOf(j.Prefix).Control && int(partition) < len(s.Shards) {
				s.Shards[partition].Ends[name] = end
			}
		}
	}
	s.Topics = append(s.Topics, t)
	return nil
}

// addReplicas adds the members of the group. They are not known while shards are being shared out, which is soon over.
func (j *kafkaJournal) addReplicas(ctx context.Context, s *clusterStatus) {
	ctx, cancel := context.WithTimeout(ctx, kafkaconn.RequestTimeout)
	defer cancel()
	peers, err := j.members(ctx)
	if err != nil {
		s.Unknown = err.Error()
		return
	}
	for _, p := range peers {
		s.Replicas = append(s.Replicas, clusterReplica{Name: p.Name, Admin: p.Admin, Version: p.Version, Shards: slices.Concat([]int32{}, p.Shards)})
		for _, shard := range p.Shards {
			if int(shard) < len(s.Shards) {
				s.Shards[shard].Owner = p.Name
			}
		}
	}
}

func (s *clusterStatus) print(out io.Writer) error {
	if s.Cluster == "" {
		fmt.Fprintf(out, "prefix %s: nothing was written yet of what all replicas share (ncs-relay cluster init)\n", s.Prefix)
	} else {
		fmt.Fprintf(out, "cluster %s, prefix %s, format %d\n", clean(s.Cluster), s.Prefix, s.Format)
		fmt.Fprintf(out, "dedup: on_conflict %s, max_keys %d, window %s; upgraded %d times\n", clean(s.Dedup.OnConflict), s.Dedup.MaxKeys, clean(s.Dedup.Window), s.Changes)
	}
	for _, p := range s.Problems {
		fmt.Fprintf(out, "PROBLEM: %s\n", clean(p))
	}
	fmt.Fprintln(out)
	err := table(out, "TOPIC,PARTITIONS,REPLICAS,RECORDS AT MOST", func(row func(...any)) {
		for _, t := range s.Topics {
			row(t.Name, t.Partitions, t.Replicas, t.Records)
		}
	})
	fmt.Fprintln(out)
	err = errors.Join(err, table(out, "REPLICA,SHARDS,ADMIN,VERSION", func(row func(...any)) {
		for _, r := range s.Replicas {
			row(clean(r.Name), numbers(r.Shards), clean(r.Admin), clean(r.Version))
		}
	}))
	if s.Unknown != "" {
		fmt.Fprintf(out, "not known: %s\n", clean(s.Unknown))
	}
	fmt.Fprintln(out)
	return errors.Join(err, table(out, "SHARD,OWNER,EPOCH,ENDS", func(row func(...any)) {
		for _, shard := range s.Shards {
			row(shard.Shard, clean(cmp.Or(shard.Owner, "none")), shard.Epoch, ends(shard.Ends))
		}
	}))
}

func numbers[T int32 | uint32](list []T) string {
	if len(list) == 0 {
		return "none"
	}
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = strconv.Itoa(int(n))
	}
	return strings.Join(words, ",")
}

func ends(byTopic map[string]int64) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(byTopic)) {
		words = append(words, fmt.Sprintf("%s %d", name[strings.LastIndexByte(name, '.')+1:], byTopic[name]))
	}
	return strings.Join(words, ", ")
}

func clusterConfirmCommand() *cobra.Command {
	var shards []int
	var all, yes bool
	cmd := clusterCommandOf("confirm", "Go on with topics that are not the ones that were known",
		`confirm says that the topics of a shard are right as they are now, although one of them was deleted and made again, or has lost
its end. All relays must have been stopped. Without the events topic, events that not all sinks have had are made again from
the inbox. Without the state topic all that the events topic holds is delivered again. Without the inbox there is
nothing to go on with: begin with another journal.kafka.prefix.`,
		func(ctx context.Context, cmd *cobra.Command, j *kafkaJournal) error {
			checked, err := j.Verify(ctx, j.cluster, j.mine)
			if err != nil {
				return err
			}
			chosen, err := j.chosen(checked, shards, all)
			if err != nil {
				return err
			}
			if err := j.stopped(ctx); err != nil {
				return err
			}
			if err := confirm(cmd, yes, fmt.Sprintf("go on with the topics of %d shards as they are", len(chosen))); err != nil {
				return err
			}
			if err := j.restart(ctx, cmd.OutOrStdout(), checked, chosen); err != nil {
				return err
			}
			raised, err := topics.Confirm(ctx, j.cluster, j.Prefix, checked.Found, chosen, "cluster confirm at "+j.cfg.ReplicaName())
			for _, shard := range slices.Sorted(maps.Keys(raised)) {
				fmt.Fprintf(cmd.OutOrStdout(), "shard %d: epoch %d\n", shard, raised[shard])
			}
			return err
		})
	cmd.Flags().IntSliceVar(&shards, "shard", nil, "raise the epoch of this shard, also if its topics are those that are known; may be given several times")
	cmd.Flags().BoolVar(&all, "unknown", false, "raise the epoch of all shards whose topics are not those that are known")
	addYes(cmd, &yes)
	return cmd
}

// stopped returns an error if there are replicas: what they go on storing would contradict what is changed.
func (j *kafkaJournal) stopped(ctx context.Context) error {
	peers, err := j.members(ctx)
	if err != nil || len(peers) == 0 {
		return err
	}
	var names []string
	for _, p := range peers {
		names = append(names, p.Name)
	}
	return fmt.Errorf("stop all relays first; these run, or did until seconds ago: %s", joinWords(names))
}

// restart makes the states of shards fit their topics.
func (j *kafkaJournal) restart(ctx context.Context, out io.Writer, checked topics.Checked, shards []int32) error {
	journal, err := kafkajournal.Open(ctx, kafkajournal.Options{
		Cluster: j.cluster, Prefix: j.Prefix, Shards: checked.State.Meta.Shards, Replica: "cluster-confirm", MaxRecord: int(j.InboxBytes())})
	if err != nil {
		return err
	}
	unknown, _ := checked.State.Unknown(j.Prefix, checked.Found)
	for _, shard := range shards {
		what, err := journal.Confirm(ctx, shard, func(topic string) bool { return slices.Contains(unknown, j.Prefix+"."+topic) })
		if err != nil {
			return fmt.Errorf("shard %d: %w", shard, err)
		}
		fmt.Fprintf(out, "shard %d: %s\n", shard, what)
	}
	return journal.Close()
}

// chosen are the shards to confirm.
func (j *kafkaJournal) chosen(checked topics.Checked, shards []int, all bool) (chosen []int32, err error) {
	if (len(shards) > 0) == all {
		return nil, usagef("give --shard or --unknown")
	}
	if checked.Missing(j.Prefix) || checked.State.Key == "" {
		return nil, errors.New("topics are missing, or nothing was written to them yet: ncs-relay cluster init comes first")
	}
	if all {
		if _, chosen = checked.State.Unknown(j.Prefix, checked.Found); len(chosen) == 0 {
			return nil, errors.New("all topics are those that are known: there is nothing to confirm; for a topic that has lost its end give --shard")
		}
		return chosen, nil
	}
	for _, shard := range shards {
		if shard < 0 || shard >= checked.State.Meta.Shards {
			return nil, usagef("there is no shard %d: they are 0 to %d", shard, checked.State.Meta.Shards-1)
		}
		chosen = append(chosen, int32(shard))
	}
	return chosen, nil
}
