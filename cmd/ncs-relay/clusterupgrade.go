package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"ncs-relay/relay/journal/kafkajournal/member"
	"ncs-relay/relay/journal/kafkajournal/topics"
	"ncs-relay/relay/kafkaconn/kafkalog"
)

func clusterUpgradeCommand() *cobra.Command {
	var yes bool
	cmd := clusterCommandOf("upgrade", "Make what this version and this configuration have hold for all replicas",
		`upgrade compares what all replicas share with what this version of ncs-relay and this configuration have, says each difference,
and makes ours hold for what is stored from now on. What was stored before is judged as before.

dedup.on_conflict, dedup.max_keys and dedup.window may be changed while replicas run. A new format is written only when all
replicas can read it; what makes an event's id or its entity changes only while all are stopped. The cluster's
name and the number of shards never change. Without a difference nothing is done.`,
		func(ctx context.Context, cmd *cobra.Command, j *kafkaJournal) error { return j.upgrade(ctx, cmd, yes) })
	addYes(cmd, &yes)
	return cmd
}

func (j *kafkaJournal) upgrade(ctx context.Context, cmd *cobra.Command, yes bool) error {
	checked, err := j.Verify(ctx, j.cluster, j.mine)
	if err != nil {
		return err
	}
	inTheWay := slices.DeleteFunc(topics.Fatal(checked.Problems), func(p topics.Problem) bool { return p.Upgradable })
	if !printProblems(io.Discard, cmd.ErrOrStderr(), inTheWay) {
		return errReported
	}
	state := checked.State
	if state.Key == "" {
		return errors.New("nothing was written yet of what all replicas share: ncs-relay cluster init does")
	}
	to := topics.Change{Meta: j.mine.Of(j.Prefix, checked.Found), By: "cluster upgrade at " + j.cfg.ReplicaName()}
	to.Topics = state.Meta.Topics
	differences := state.Meta.Differences(to.Meta)
	if len(differences) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "all replicas share what this version and this configuration have: there is nothing to upgrade")
		return nil
	}
	for _, d := range differences {
		fmt.Fprintln(cmd.OutOrStdout(), clean(d.String()))
	}
	if err := j.allow(ctx, state.Meta, to.Meta, differences); err != nil {
		return err
	}
	if err := confirm(cmd, yes, "change that for all replicas"); err != nil {
		return err
	}
	if to.From, err = j.inboxEnds(ctx, to.Shards); err != nil {
		return fmt.Errorf("nothing was changed, because it is not known from where on it would hold: %w", err)
	}
	if err := state.Upgrade(ctx, j.cluster, j.Prefix, to); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "changed for what is stored from now on: change %d of what all replicas share\n", len(state.Changes)+1)
	return nil
}

// allow returns why replicas that run forbid a change.
func (j *kafkaJournal) allow(ctx context.Context, from, to topics.Meta, differences []topics.Difference) error {
	for _, d := range differences {
		if !d.Alone {
			continue
		}
		if err := j.stopped(ctx); err != nil {
			return fmt.Errorf("%s: %w", d.Note, err)
		}
	}
	if from.Format == to.Format {
		return nil
	}
	peers, err := j.members(ctx)
	if err != nil {
		return err
	}
	var old []string
	for _, p := range peers {
		if p.Format < to.Format {
			old = append(old, fmt.Sprintf("%s (version %s)", p.Name, p.Version))
		}
	}
	if len(old) > 0 {
		return fmt.Errorf("format %d cannot be read by %s: install this version there first", to.Format, joinWords(old))
	}
	return nil
}

// members are the replicas that take part, or did until seconds ago.
func (j *kafkaJournal) members(ctx context.Context) ([]member.Peer, error) {
	return member.New(member.Options{Brokers: j.cluster, Group: topics.NamesOf(j.Prefix).Group}).Peers(ctx)
}

// inboxEnds are the ends of the inbox, by shard.
func (j *kafkaJournal) inboxEnds(ctx context.Context, shards int) ([]int64, error) {
	all := make([]int32, shards)
	for n := range all {
		all[n] = int32(n)
	}
	found, err := kafkalog.Ends(ctx, j.cluster, topics.NamesOf(j.Prefix).Inbox, all)
	ends := make([]int64, shards)
	for n, end := range found {
		ends[n] = end
	}
	return ends, err
}
