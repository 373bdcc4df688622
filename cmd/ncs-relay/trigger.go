package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"ncs-relay/relay/ncs"
)

func triggerCommand() *cobra.Command {
	var url string
	var secret secretFlags
	var t trial
	cmd := &cobra.Command{
		Use:   "trigger EVENT | --body FILE --url URL | --sink NAME",
		Short: "Send one sample event as Agora would: fresh ids, times of now, signed",
		Long: `trigger sends one event as Agora would: the sample of an event type (see ncs-relay events show) with new ids and times of now. It
goes to a URL, a receiver's or a relay's source, signed with the secret given; or through a sink of a configuration, as serve
would send it, signed with the secret of its first source, and, unlike what sinks test sends, without a mark as a test. EVENT may
also be the name of a sample, such as 3-31-uploaded-webpage. --body sends the body of a file instead, byte for byte. It fails if the
event was not taken.`,
		Args: rangeArgs(0, 1, "one event type, such as cloud_recording.uploaded"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case (len(args) == 1) == (t.body != ""):
				return usagef("one of EVENT and --body is needed")
			case (url == "") == (t.sink == ""):
				return usagef("one of --url and --sink is needed")
			case t.sink != "" && secret != (secretFlags{}):
				return usagef("--sink cannot be combined with a secret: the configuration has it")
			}
			if len(args) == 1 {
				t.event = args[0]
			}
			if t.sink != "" {
				return t.run(cmd)
			}
			return t.post(cmd, url, &secret)
		},
	}
	cmd.Flags().StringVar(&url, "url", "", "where to post")
	cmd.Flags().StringVar(&t.sink, "sink", "", "the sink of the configuration to send it through")
	cmd.Flags().StringVar(&t.body, "body", "", "send the body in this file, byte for byte; - is standard input")
	addConfigFlag(cmd, &t.config)
	secret.add(cmd)
	return cmd
}

// post sends the event itself, past any configuration.
func (t *trial) post(cmd *cobra.Command, url string, secret *secretFlags) error {
	body, err := trialBody(cmd, ncs.Builtin(), t.body, t.event)
	if err != nil {
		return err
	}
	key, err := secret.read()
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "> %s\n", body)
	status, answer, err := post(cmd.Context(), url, key, body)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "< %d %s\n", status, clean(answer))
	if status != http.StatusOK {
		return fmt.Errorf("not taken: Agora knows only 200, and would send it again")
	}
	return nil
}
