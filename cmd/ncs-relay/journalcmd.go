package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/diskjournal"
	"ncs-relay/relay/ncs"
)

func journalCommand() *cobra.Command {
	return group("journal", "Check and read a data_dir that no relay has open", journalVerifyCommand(), journalExportCommand())
}

// dataDir is the directory named, or the one of the configuration, with its names of events.
func dataDir(cmd *cobra.Command, args []string, file string) (string, *ncs.Catalogue, error) {
	if len(args) == 1 {
		if cmd.Flags().Changed("config") {
			return "", nil, usagef("only one of DIR and --config")
		}
		return args[0], ncs.Builtin(), nil
	}
	cfg, err := loadAway(cmd, file, "data_dir", "catalogue")
	switch {
	case errors.Is(err, errReported):
		fmt.Fprintln(cmd.ErrOrStderr(), "or name the directory")
		return "", nil, err
	case err != nil:
		return "", nil, fmt.Errorf("%w (or name the directory)", err)
	}
	if cfg.Journal.Kafka != nil {
		return "", nil, errors.New("the journal of this configuration is on Kafka: ncs-relay cluster check looks at it; for one on disk name the directory")
	}
	return cfg.DataDir, cfg.Catalogue, nil
}

func journalVerifyCommand() *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify [DIR]",
		Short: "Read a whole journal and say what cannot be read; changes nothing",
		Args:  rangeArgs(0, 1, "at most one directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, _, err := dataDir(cmd, args, file)
			if err != nil {
				return err
			}
			report, err := diskjournal.Verify(dir)
			if err != nil {
				return offlineHint(err)
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), reportJSON(report))
			} else {
				printReport(cmd.OutOrStdout(), report, time.Now())
			}
			if err == nil && !report.Sound() {
				return errReported
			}
			return err
		},
	}
	addConfigFlag(cmd, &file)
	addJSON(cmd, &asJSON)
	return cmd
}

func printReport(out io.Writer, r *diskjournal.Report, now time.Time) {
	fmt.Fprintf(out, "%d records in %d segments and %d kept beside them, %s, positions %s to %s\n", r.Records, r.Segments, r.Kept, size(r.Bytes), r.First, r.Last)
	if r.TornBytes > 0 {
		fmt.Fprintf(out, "%d bytes of an unfinished write at the end: never answered 200, removed at the next start\n", r.TornBytes)
	}
	for _, name := range r.Unknown {
		fmt.Fprintf(out, "not a file of the journal: %s\n", clean(name))
	}
	for _, d := range r.Damage {
		fmt.Fprintf(out, "DAMAGED: %s, %d bytes from %d: at most %d records from position %s\n", d.File, d.Length, d.Offset, d.Missing, d.First)
	}
	if r.StateError != nil {
		fmt.Fprintf(out, "THE STATE CANNOT BE READ: %s\n", clean(r.StateError.Error()))
	}
	for _, s := range r.Sinks {
		fmt.Fprintf(out, "sink %s: %d pending (%s), %d dead letters\n", s.Name, s.Totals.Pending, size(s.PendingBytes), s.Letters)
	}
	if r.Sound() {
		fmt.Fprintln(out, "everything can be read")
	}
}

// reportJSON gives a report names of its own, so that the journal's can change.
func reportJSON(r *diskjournal.Report) any {
	type damage struct {
		File    string           `json:"file"`
		Offset  int64            `json:"offset"`
		Length  int64            `json:"length"`
		Missing int64            `json:"missing"`
		First   journal.Position `json:"first_position"`
	}
	type sink struct {
		Name         string `json:"name"`
		Pending      uint64 `json:"pending"`
		PendingBytes int64  `json:"pending_bytes"`
		DeadLetters  uint64 `json:"dead_letters"`
	}
	report := struct {
		Sound      bool             `json:"sound"`
		Segments   int              `json:"segments"`
		Records    uint64           `json:"records"`
		Kept       uint64           `json:"kept"`
		Bytes      int64            `json:"bytes"`
		First      journal.Position `json:"first_position"`
		Last       journal.Position `json:"last_position"`
		Damage     []damage         `json:"damage,omitempty"`
		TornBytes  int64            `json:"torn_bytes,omitempty"`
		Unknown    []string         `json:"unknown_files,omitempty"`
		StateError string           `json:"state_error,omitempty"`
		Sinks      []sink           `json:"sinks,omitempty"`
	}{Sound: r.Sound(), Segments: r.Segments, Records: r.Records, Kept: r.Kept, Bytes: r.Bytes, First: r.First, Last: r.Last,
		TornBytes: r.TornBytes, Unknown: r.Unknown}
	for _, d := range r.Damage {
		report.Damage = append(report.Damage, damage(d))
	}
	if r.StateError != nil {
		report.StateError = r.StateError.Error()
	}
	for _, s := range r.Sinks {
		report.Sinks = append(report.Sinks, sink{s.Name, s.Totals.Pending, s.PendingBytes, s.Letters})
	}
	return report
}

func journalExportCommand() *cobra.Command {
	var file, bodies string
	cmd := &cobra.Command{
		Use:   "export [DIR]",
		Short: "Write every event that can be read, as lines of JSON or as files",
		Long: `export writes the events of a journal that no relay has open, also of a damaged one, to standard output: one JSON object a line,
with the members of a file sink's lines, and position, and quarantine where a body was not understood. With --bodies it writes
each body into a file of its own instead, for ncs-relay send. What cannot be read is reported on standard error, and the
exit status is then 1.`,
		Args: rangeArgs(0, 1, "at most one directory"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, catalogue, err := dataDir(cmd, args, file)
			if err != nil {
				return err
			}
			out := bufio.NewWriter(cmd.OutOrStdout())
			write := func(r *journal.Record) error { return writeExported(out, r, catalogue) }
			if bodies != "" {
				if err := os.MkdirAll(bodies, 0o700); err != nil {
					return err
				}
				write = func(r *journal.Record) error { return writeBody(bodies, r) }
			}
			report, err := diskjournal.Export(dir, write)
			err = errors.Join(err, out.Flush()) // what was read before a fault is worth having
			if report != nil {
				printReport(cmd.ErrOrStderr(), report, time.Now())
			}
			switch {
			case err != nil:
				return offlineHint(err)
			case !report.Sound():
				return errReported
			}
			return nil
		},
	}
	addConfigFlag(cmd, &file)
	cmd.Flags().StringVar(&bodies, "bodies", "", "write each body into a file in this directory")
	return cmd
}

// exported is a line of an export.
type exported struct {
	ID         string           `json:"id"`
	Position   journal.Position `json:"position"`
	Product    string           `json:"product,omitempty"`
	Event      string           `json:"event,omitempty"`
	EventType  int              `json:"event_type,omitempty"`
	Category   string           `json:"category,omitempty"`
	Entity     string           `json:"entity"`
	Source     string           `json:"source"`
	ReceivedAt string           `json:"received_at"`
	Quarantine string           `json:"quarantine,omitempty"`
	Headers    exportedHeaders  `json:"headers"`
	Body       *string          `json:"body,omitempty"`
	BodyBase64 []byte           `json:"body_base64,omitempty"`
}

type exportedHeaders struct {
	ContentType string `json:"content-type,omitempty"`
	SignatureV1 string `json:"agora-signature,omitempty"`
	SignatureV2 string `json:"agora-signature-v2,omitempty"`
}

func writeExported(out io.Writer, r *journal.Record, catalogue *ncs.Catalogue) error {
	e := exported{
		ID: hex.EncodeToString(r.ID[:]), Position: r.Position, Entity: r.Entity, Source: r.Source,
		ReceivedAt: r.Time.UTC().Format("2006-01-02T15:04:05.000Z07:00"), Quarantine: r.Quarantine,
		Headers: exportedHeaders{r.ContentType, r.SignatureV1, r.SignatureV2},
	}
	if r.Quarantine == "" {
		info := catalogue.Lookup(r.ProductID, r.EventType)
		e.Product, e.Event, e.EventType, e.Category = info.Product, info.Event, info.EventType, info.Category
	}
	if utf8.Valid(r.Body) { // the encoder would replace what is not
		text := string(r.Body)
		e.Body = &text
	} else {
		e.BodyBase64 = r.Body
	}
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	return enc.Encode(e)
}

// writeBody writes a body into a file that was not there.
func writeBody(dir string, r *journal.Record) error {
	name := filepath.Join(dir, fmt.Sprintf("%012d-%x.json", r.Position.Offset, r.ID))
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(r.Body); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// offlineHint says what to do about a directory that is in use.
func offlineHint(err error) error {
	if errors.Is(err, diskjournal.ErrLocked) {
		return fmt.Errorf("%w: stop the relay first, or ask it with ncs-relay status and inspect", err)
	}
	return err
}
