package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"ncs-relay/relay/ncs"
)

func eventsCommand() *cobra.Command {
	var file, product string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "List the products, event types, names and categories that rules can use",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			catalogue, err := catalogueOf(cmd, file)
			if err != nil {
				return err
			}
			infos, err := ofProduct(catalogue, product)
			if err != nil {
				return err
			}
			if len(infos) == 0 {
				return fmt.Errorf("no event types are published for product %s", product)
			}
			if asJSON {
				return printEventsJSON(cmd, infos)
			}
			return table(cmd.OutOrStdout(), "PRODUCT,ID,TYPE,EVENT,CATEGORY", func(row func(...any)) {
				for _, i := range infos {
					row(i.Product, i.ProductID, i.EventType, i.Event, i.Category)
				}
			})
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only this product, such as cloud_recording")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	addCatalogueFlag(cmd, &file)
	cmd.AddCommand(eventsShowCommand(), eventsSchemaCommand())
	return cmd
}

func addCatalogueFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "a configuration whose catalogue counts too")
}

// catalogueOf is that of a configuration, or what is built in.
func catalogueOf(cmd *cobra.Command, file string) (*ncs.Catalogue, error) {
	if file == "" {
		return ncs.Builtin(), nil
	}
	cfg, err := loadAway(cmd, file, "catalogue")
	if err != nil {
		return nil, err
	}
	return cfg.Catalogue, nil
}

// ofProduct lists the event types of a product, or all.
func ofProduct(catalogue *ncs.Catalogue, name string) ([]ncs.Info, error) {
	infos := catalogue.Types()
	if name == "" {
		return infos, nil
	}
	id, err := catalogue.ParseProduct(name)
	if err != nil {
		return nil, &usageError{err}
	}
	return slices.DeleteFunc(infos, func(i ncs.Info) bool { return i.ProductID != id }), nil
}

// namedTypes lists the event types of a name or number, which may be one in several products.
func namedTypes(catalogue *ncs.Catalogue, name string) ([]ncs.Info, error) {
	if number, err := strconv.Atoi(name); err == nil {
		infos := slices.DeleteFunc(catalogue.Types(), func(i ncs.Info) bool { return i.EventType != number })
		if len(infos) == 0 {
			return nil, usagef("no product of the catalogue has an event type %d; ncs-relay events lists them", number)
		}
		return infos, nil
	}
	selected, err := catalogue.ParseEvent(nil, name)
	if err != nil {
		return nil, usagef("%v; ncs-relay events lists them, with -c relay.yaml also those of its catalogue", err)
	}
	infos := slices.DeleteFunc(catalogue.Types(), func(i ncs.Info) bool { return !selected.Matches(i) })
	if len(infos) == 0 {
		return nil, usagef("%s is not in the catalogue; ncs-relay events lists it", name)
	}
	return infos, nil
}

// eventType is an entry of the catalogue; the rest is for events show.
type eventType struct {
	Product   string `json:"product"`
	ProductID int    `json:"product_id"`
	EventType int    `json:"event_type"`
	Event     string `json:"event"`
	Category  string `json:"category"`

	*ncs.Explanation
	Codes   []ncs.Fact    `json:"codes,omitempty"`
	Samples []eventSample `json:"samples,omitempty"`
}

type eventSample struct {
	Name  string          `json:"name"`
	Body  json.RawMessage `json:"body"`
	Facts []ncs.Fact      `json:"facts"`
}

func newEventType(i ncs.Info) eventType {
	return eventType{Product: i.Product, ProductID: i.ProductID, EventType: i.EventType, Event: i.Event, Category: i.Category}
}

func printEventsJSON(cmd *cobra.Command, infos []ncs.Info) error {
	entries := make([]eventType, len(infos))
	for i, info := range infos {
		entries[i] = newEventType(info)
	}
	return printJSON(cmd.OutOrStdout(), entries)
}

func eventsShowCommand() *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show EVENT",
		Short: "Explain an event type: meaning, fields, codes, open questions, and sample bodies with what they say",
		Long: `show explains an event type: what it means and when it comes, the fields below payload with their types, what their codes
mean, what is undocumented or contradictory, and sample bodies with what they say. EVENT is a name or Agora's number, also of
several products: then it explains each. A ? behind a type: not in every event.
ncs-relay knows it all from Agora's pages, from bodies that receivers have shown, and from the catalogue of a configuration; no
relay is asked or needed.`,
		Args: rangeArgs(1, 1, "an event type, such as cloud_recording.uploaded"),
		RunE: func(cmd *cobra.Command, args []string) error {
			catalogue, err := catalogueOf(cmd, file)
			if err != nil {
				return err
			}
			infos, err := namedTypes(catalogue, args[0])
			if err != nil {
				return err
			}
			types := make([]eventType, len(infos))
			for i, info := range infos {
				types[i] = describeType(info)
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), types)
			}
			for i := range types {
				printEventType(cmd.OutOrStdout(), &types[i])
			}
			return nil
		},
	}
	addJSON(cmd, &asJSON)
	addCatalogueFlag(cmd, &file)
	return cmd
}

func describeType(i ncs.Info) eventType {
	t := newEventType(i)
	x := i.Explain()
	t.Explanation, t.Codes = &x, i.Codes()
	for _, s := range ncs.Samples() {
		if s.Info == i {
			t.Samples = append(t.Samples, eventSample{s.Name, s.Body(), s.Facts()})
		}
	}
	return t
}

func printEventType(out io.Writer, t *eventType) {
	fmt.Fprintf(out, "%s.%s: product %d, type %d, category %s\n", t.Product, t.Event, t.ProductID, t.EventType, t.Category)
	for _, line := range []string{t.Means, t.When, t.Page} {
		if line != "" {
			fmt.Fprintf(out, "  %s\n", line)
		}
	}
	printFields(out, t.Fields)
	for _, note := range slices.Concat(t.Notes, t.ProductNotes) {
		fmt.Fprintf(out, "  note: %s\n", note)
	}
	for _, s := range t.Samples {
		fmt.Fprintf(out, "\nsample %s\n  %s\n", s.Name, s.Body)
		printFacts(out, "says", s.Facts)
	}
	fmt.Fprintln(out)
}

func printFields(out io.Writer, fields []ncs.Field) {
	if len(fields) == 0 {
		fmt.Fprintln(out, "  its payload is not published")
		return
	}
	longest := slices.MaxFunc(fields, func(a, b ncs.Field) int { return len(a.Name) - len(b.Name) })
	for _, f := range fields {
		kind := strings.Join(f.Types, "|")
		if f.Sometimes {
			kind += "?"
		}
		codes := f.Codes
		f.Codes = nil // below, each on its line
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("  %-*s  %-14s  %s", len(longest.Name), f.Name, kind, f.Describe()), " "))
		for _, c := range codes {
			_, beside, ok := strings.Cut(c.Field, " beside ")
			if ok {
				beside = " (with " + beside + ")"
			}
			fmt.Fprintf(out, "      %s = %s%s\n", c.Value, c.Meaning, beside)
		}
	}
}

func eventsSchemaCommand() *cobra.Command {
	var file, product string
	cmd := &cobra.Command{
		Use:   "schema [EVENT]",
		Short: "Print the JSON Schema of an event type's bodies, or of all",
		Long: `schema prints a JSON Schema, draft 2020-12, of the bodies of an event type: to generate types from, or to check bodies
with. It takes fields and values that nobody has described, as Agora may add them at any time. Without EVENT, or where the name
is of several products, it is one document that judges each body by its type and takes those of types unknown today.`,
		Args: rangeArgs(0, 1, "one event type, such as cloud_recording.uploaded, or none"),
		RunE: func(cmd *cobra.Command, args []string) error {
			catalogue, err := catalogueOf(cmd, file)
			if err != nil {
				return err
			}
			infos, err := ofProduct(catalogue, product)
			if len(args) == 1 {
				if product != "" {
					return usagef("--product cannot be combined with an event type")
				}
				infos, err = namedTypes(catalogue, args[0])
			}
			switch {
			case err != nil:
				return err
			case len(infos) == 0:
				return fmt.Errorf("no event types are published for product %s", product)
			case len(args) == 1 && len(infos) == 1:
				return printJSON(cmd.OutOrStdout(), infos[0].Schema().Document())
			}
			return printJSON(cmd.OutOrStdout(), ncs.SchemaOf(infos))
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only the events of this product, such as cloud_recording")
	addCatalogueFlag(cmd, &file)
	return cmd
}
