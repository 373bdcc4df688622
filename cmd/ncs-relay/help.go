package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// groups are the commands by what somebody wants to do.
var groups = []struct {
	title    string
	commands []string
}{
	{"Set up and run:", []string{"init", "serve", "check", "config", "health", "version"}},
	{"Understand events and rules:", []string{"events", "route", "asyncapi"}},
	{"Try, without Agora:", []string{"trigger", "listen", "simulate", "send", "verify"}},
	{"Operate a running relay:", []string{"status", "sinks", "pending", "deadletters", "replay", "inspect"}},
	{"Look after its journal:", []string{"journal", "cluster"}},
	{"About this program:", []string{"help", "completion"}},
}

// examples of each command, by its path.
var examples = map[string]string{
	"init": `  ncs-relay init
  ncs-relay init --product cloud_recording --sink kafka --to kafka-1.internal:9092
  ncs-relay init --product cloud_recording --product rtc --sink http --to https://hooks.internal/agora`,
	"serve": `  ncs-relay serve -c relay.yaml`,
	"check": `  ncs-relay check -c relay.yaml --strict
  ncs-relay check -c relay.yaml --offline --json
  ncs-relay check --connect`,
	"config schema": `  ncs-relay config schema > relay.schema.json`,
	"config show":   `  ncs-relay config show -c relay.yaml`,
	"health": `  ncs-relay health
  ncs-relay health -c relay.yaml`,
	"version": `  ncs-relay version`,
	"events": `  ncs-relay events --product cloud_recording
  ncs-relay events -c relay.yaml`,
	"events show": `  ncs-relay events show cloud_recording.uploaded
  ncs-relay events show recorder_leave --json`,
	"events schema": `  ncs-relay events schema cloud_recording.uploaded
  ncs-relay events schema --product rtc > rtc.schema.json`,
	"route": `  ncs-relay route body.json
  ncs-relay route -c relay.yaml --expect expect.txt
  ncs-relay inspect 0123456789abcdef0123456789abcdef --body | ncs-relay route`,
	"asyncapi": `  ncs-relay asyncapi -c relay.yaml > asyncapi.json`,
	"trigger": `  ncs-relay trigger cloud_recording.uploaded --url http://localhost:8080/ncs --secret-env NCS_SECRET
  ncs-relay trigger cloud_recording.uploaded --sink billing
  ncs-relay trigger --body body.json --sink billing`,
	"listen": `  ncs-relay listen --forward-to http://localhost:3000/hooks --sink billing -c relay.yaml
  ncs-relay listen --forward-to http://localhost:3000 --event cloud_recording.uploaded`,
	"simulate": `  ncs-relay simulate --url http://localhost:8080/ncs --secret-env NCS_SECRET
  ncs-relay simulate --url http://localhost:8080/ncs --secret-env NCS_SECRET --recordings 1000 --rate 200 --shuffle 0.1
  ncs-relay simulate --url http://localhost:8080/ncs --secret-env NCS_SECRET --products rtc,media_push,conversational_ai
  ncs-relay simulate --conformance http://localhost:3000/hooks --secret-env NCS_SECRET`,
	"send":   `  ncs-relay send --url http://localhost:8080/ncs --secret-env NCS_SECRET body.json`,
	"verify": `  ncs-relay verify body.json --signature-v2 "$SIGNATURE" --secret-env NCS_SECRET`,
	"status": `  ncs-relay status
  ncs-relay status --watch
  NCS_RELAY_ADMIN=relay.internal:9464 NCS_RELAY_TOKEN_FILE=token ncs-relay status --json`,
	"sinks list": `  ncs-relay sinks list
  ncs-relay sinks list --json`,
	"sinks test": `  ncs-relay sinks test billing
  ncs-relay sinks test billing --event cloud_recording.session_exit`,
	"sinks pause":  `  ncs-relay sinks pause billing --for 2h --reason 'database migration'`,
	"sinks resume": `  ncs-relay sinks resume billing`,
	"sinks move":   `  ncs-relay sinks move old --to billing`,
	"sinks drop":   `  ncs-relay sinks drop old`,
	"pending list": `  ncs-relay pending list --sink billing
  ncs-relay pending list --entity 38f8e3cfdc474cd56fc1ceba380d7e1a --json`,
	"pending show": `  ncs-relay pending show 0123456789abcdef0123456789abcdef`,
	"pending skip": `  ncs-relay pending skip --sink billing --id 0123456789abcdef0123456789abcdef`,
	"deadletters list": `  ncs-relay deadletters list --by-reason
  ncs-relay deadletters list --sink billing --since 2h`,
	"deadletters show": `  ncs-relay deadletters show billing 4711`,
	"deadletters replay": `  ncs-relay deadletters replay --sink billing --since 3d --wait
  ncs-relay deadletters replay --sink billing --dry-run`,
	"deadletters drop": `  ncs-relay deadletters drop --sink billing --until 30d`,
	"replay": `  ncs-relay replay --sink billing --since 2h --rate 50
  ncs-relay replay --product cloud_recording --since 1d --to archive --dry-run`,
	"replay list":   `  ncs-relay replay list`,
	"replay cancel": `  ncs-relay replay cancel 3`,
	"inspect": `  ncs-relay inspect 0123456789abcdef0123456789abcdef
  ncs-relay inspect --entity 38f8e3cfdc474cd56fc1ceba380d7e1a --since 1d`,
	"cluster init":  `  ncs-relay cluster init -c relay.yaml`,
	"cluster check": `  ncs-relay cluster check -c relay.yaml`,
	"cluster status": `  ncs-relay cluster status -c relay.yaml
  ncs-relay cluster status --json`,
	"cluster confirm": `  ncs-relay cluster confirm --unknown
  ncs-relay cluster confirm --shard 3 --yes`,
	"cluster upgrade": `  ncs-relay cluster upgrade -c relay.yaml
  ncs-relay cluster upgrade --yes`,
	"journal verify": `  ncs-relay journal verify -c relay.yaml
  ncs-relay journal verify /var/lib/ncs-relay --json`,
	"journal export": `  ncs-relay journal export > events.jsonl
  ncs-relay journal export --bodies bodies`,
}

// describeCommands puts the commands into groups and gives each its examples.
func describeCommands(root *cobra.Command) {
	for _, g := range groups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title})
		for _, name := range g.commands {
			for _, cmd := range root.Commands() {
				if cmd.Name() == name {
					cmd.GroupID = g.title
				}
			}
		}
	}
	for path, lines := range examples {
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil || cmd.CommandPath() != root.Name()+" "+path {
			panic("BUG: examples of a command that is not there: " + path)
		}
		cmd.Example = lines
	}
}
