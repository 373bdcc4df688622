package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"ncs-relay/config"
)

// beginning is what a first configuration is made of.
type beginning struct {
	products []string
	path     string
	kind     string // of the sink
	to       string // where it sends
}

// beginningKinds are the kinds of sinks, with where each sends if nobody says; "" = that must be said.
var beginningKinds = []struct{ kind, question, to string }{
	{"file", "Which file", "./archive/events.jsonl"},
	{"http", "Which URL", ""},
	{"kafka", "Which brokers (host:port, with commas between them)", ""},
}

func initCommand() *cobra.Command {
	var file string
	var b beginning
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Write a first configuration",
		Long: `init writes a first configuration that passes check, and says what to do next. On a terminal it asks for what no flag
says; a script says all it wants by flags. A file that is there already is left alone.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Lstat(file); err == nil {
				return fmt.Errorf("%s is there already, and was left alone: -c names another", file)
			}
			if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
				if err := b.ask(cmd, in); err != nil {
					return err
				}
			}
			return b.write(cmd.OutOrStdout(), file)
		},
	}
	cmd.Flags().StringVarP(&file, "config", "c", "relay.yaml", "the file to write")
	cmd.Flags().StringSliceVar(&b.products, "product", nil, "a product that sends, such as cloud_recording; may be given again. None: one source takes all")
	cmd.Flags().StringVar(&b.path, "path", "/ncs", "the path that takes notifications; with several products each has one below it")
	cmd.Flags().StringVar(&b.kind, "sink", "file", "where events go: file, http or kafka")
	cmd.Flags().StringVar(&b.to, "to", "", "the file, the URL, or the brokers")
	return cmd
}

// ask asks for what no flag says.
func (b *beginning) ask(cmd *cobra.Command, in io.Reader) error {
	lines := bufio.NewReader(in)
	question := func(flag, text string, value *string) error {
		if cmd.Flags().Changed(flag) {
			return nil
		}
		fmt.Fprint(cmd.ErrOrStderr(), text)
		if *value != "" {
			fmt.Fprintf(cmd.ErrOrStderr(), " [%s]", *value)
		}
		fmt.Fprint(cmd.ErrOrStderr(), ": ")
		line, err := lines.ReadString('\n')
		if err != nil {
			return errors.New("no answer: nothing was written")
		}
		if line = strings.TrimSpace(line); line != "" {
			*value = line
		}
		return nil
	}
	products := ""
	if err := question("product", "Which products, with commas between them (Enter: all, by one secret)", &products); err != nil {
		return err
	}
	for p := range strings.SplitSeq(products, ",") {
		if p = strings.TrimSpace(p); p != "" {
			b.products = append(b.products, p)
		}
	}
	if err := question("path", "Which path takes notifications", &b.path); err != nil {
		return err
	}
	if err := question("sink", "Where do events go: file, http or kafka", &b.kind); err != nil {
		return err
	}
	for _, k := range beginningKinds {
		if k.kind == b.kind {
			if b.to == "" {
				b.to = k.to
			}
			return question("to", k.question, &b.to)
		}
	}
	return nil // write says what is wrong
}

// beginningSource is a source to write, with the variable of its secret.
type beginningSource struct{ name, path, variable, products string }

// sources are one for each product, as each has a secret of its own.
func (b *beginning) sources() []beginningSource {
	if len(b.products) == 0 {
		return []beginningSource{{name: "agora", path: b.path, variable: "NCS_SECRET"}}
	}
	var all []beginningSource
	for _, p := range b.products {
		s := beginningSource{name: p, path: b.path, variable: "NCS_SECRET", products: fmt.Sprintf("\n    products: [%q]", p)}
		if len(b.products) > 1 {
			s.path = strings.TrimSuffix(b.path, "/") + "/" + p
			s.variable = "NCS_" + strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(p)) + "_SECRET"
		}
		all = append(all, s)
	}
	return all
}

// sink is the sink to write, and its name.
func (b *beginning) sink() (name, settings string, err error) {
	for _, k := range beginningKinds {
		if k.kind != b.kind {
			continue
		}
		if b.to == "" {
			b.to = k.to
		}
		if b.to == "" {
			return "", "", usagef("--sink %s needs --to, %s", b.kind, strings.ToLower(k.question))
		}
		switch b.kind {
		case "http":
			return "service", fmt.Sprintf("url: %q", b.to), nil
		case "kafka":
			return "events", fmt.Sprintf("brokers: %q\n      topic: ncs.{product}             # the cluster has it, or add create_topics", b.to), nil
		default:
			return "archive", fmt.Sprintf("path: %q", b.to), nil
		}
	}
	return "", "", usagef("--sink %q is not file, http or kafka", b.kind)
}

// text is the configuration.
func (b *beginning) text() (text, sinkName string, err error) {
	sinkName, settings, err := b.sink()
	if err != nil {
		return "", "", err
	}
	var t strings.Builder
	t.WriteString("# All that is not written here has a default: `ncs-relay config show` prints it.\n\nsources:\n")
	for _, s := range b.sources() {
		fmt.Fprintf(&t, "  - name: %q\n    path: %q\n    secrets: [\"${%s:?copy it from the Console, Notifications}\"]%s\n", s.name, s.path, s.variable, s.products)
	}
	fmt.Fprintf(&t, "\nsinks:\n  - name: %[1]s\n    %[2]s:\n      %[3]s\n\nroutes:\n  - to: [%[1]s]                       # every event; add match: {event: ...} to send less\n", sinkName, b.kind, settings)
	return t.String(), sinkName, nil
}

// write writes the file if check would have nothing to say against it, and says what comes next.
func (b *beginning) write(out io.Writer, file string) error {
	text, sink, err := b.text()
	if err != nil {
		return err
	}
	_, report := config.Parse(file, []byte(text), ".", func(name string) (string, bool) {
		if strings.HasSuffix(name, "_SECRET") {
			return "comes later", true
		}
		return os.LookupEnv(name)
	}, kinds)
	if len(report.Problems) > 0 {
		p := report.Problems[0]
		return usagef("with that the file would be wrong: %s: %s (%s)", p.Path, p.Message, p.Hint)
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and was left alone", file)
	}
	if err != nil {
		return err
	}
	if _, err := f.WriteString(text); err != nil {
		return errors.Join(err, f.Close(), os.Remove(file))
	}
	if err := f.Close(); err != nil {
		return err
	}
	return b.next(out, file, sink)
}

// next says what to do with the file.
func (b *beginning) next(out io.Writer, file, sink string) error {
	option := ""
	if file != "relay.yaml" {
		option = " -c " + file
	}
	var t strings.Builder
	fmt.Fprintf(&t, "%s is written: every event goes to the sink %s (%s, %s). Next:\n", file, sink, b.kind, b.to)
	for _, s := range b.sources() {
		fmt.Fprintf(&t, "  export %s=...   # what Agora's Console shows for %s\n", s.variable, s.name)
	}
	s := b.sources()[0]
	event := "cloud_recording.uploaded"
	if len(b.products) > 0 && b.products[0] != "cloud_recording" {
		event = "EVENT" // ncs-relay events has its names
	}
	fmt.Fprintf(&t, "  ncs-relay check%s\n  ncs-relay serve%s\nand in a second terminal, to see an event arrive:\n  ncs-relay trigger %s --url http://localhost:8080%s --secret-env %s\n", option, option, event, s.path, s.variable)
	_, err := io.WriteString(out, t.String())
	return err
}
