package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"ncs-relay/relay/admin"
)

// missing says which parts of a journal that several relays share the answers to a command are without, each once, and whether
// something was not done because of that.
type missing struct {
	out  io.Writer
	said map[string]bool
	err  error
}

func newMissing(out io.Writer) *missing { return &missing{out: out, said: make(map[string]bool)} }

// note takes the answer to a request.
func (m *missing) note(method, path string, body, answer []byte) {
	var partial struct{ Unanswered []admin.Unanswered }
	var asked struct {
		DryRun bool `json:"dry_run"`
	}
	_ = json.Unmarshal(answer, &partial) // what is no such answer names nothing
	_ = json.Unmarshal(body, &asked)
	before, after := "not done in ", "; give the command again when somebody has them"
	switch {
	case method == http.MethodGet, asked.DryRun:
		before, after = "this is without ", ""
	case method == http.MethodDelete, strings.HasSuffix(path, "/pause"), strings.HasSuffix(path, "/resume"):
		before, after = "not confirmed for ", "; it is stored, and counts there from when they follow"
	}
	for _, u := range partial.Unanswered {
		if method != http.MethodGet && !asked.DryRun {
			m.err = errReported
		}
		if text := before + missingPart(u) + after; !m.said[text] {
			m.said[text] = true
			fmt.Fprintln(m.out, text)
		}
	}
}

// missingPart is which shards are missing and why.
func missingPart(u admin.Unanswered) string {
	of := ""
	if u.Replica != "" {
		of = " of replica " + clean(u.Replica)
	}
	return shardList(u.Shards) + of + ": " + clean(u.Error)
}

// shardList names shards for people; none = which ones is not known.
func shardList(shards []uint32) string {
	switch len(shards) {
	case 0:
		return "what other replicas have"
	case 1:
		return fmt.Sprintf("shard %d", shards[0])
	}
	return "shards " + numbers(shards)
}
