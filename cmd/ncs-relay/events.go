package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"ncs-relay/relay/ncs"
)

func eventsCommand() *cobra.Command {
	var product string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "List the products, event types, names and categories that rules can use",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			infos := ncs.Catalogue()
			if product != "" {
				id, err := ncs.ParseProduct(product)
				if err != nil {
					return &usageError{err}
				}
				infos = slices.DeleteFunc(infos, func(i ncs.Info) bool { return i.ProductID != id })
			}
			if len(infos) == 0 {
				return fmt.Errorf("no event types are published for product %s", product)
			}
			if asJSON {
				return printEventsJSON(cmd, infos)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "PRODUCT\tID\tTYPE\tEVENT\tCATEGORY")
			for _, i := range infos {
				fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\n", i.Product, i.ProductID, i.EventType, i.Event, i.Category)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only this product, such as cloud_recording")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(eventsShowCommand())
	return cmd
}

// eventType is an entry of the catalogue; Codes and Samples are for events show.
type eventType struct {
	Product   string        `json:"product"`
	ProductID int           `json:"product_id"`
	EventType int           `json:"event_type"`
	Event     string        `json:"event"`
	Category  string        `json:"category"`
	Codes     []ncs.Fact    `json:"codes,omitempty"`
	Samples   []eventSample `json:"samples,omitempty"`
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
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show EVENT",
		Short: "Show what the codes of an event type mean, and sample bodies of it with what they say",
		Args:  rangeArgs(1, 1, "an event type, such as cloud_recording.uploaded"),
		RunE: func(cmd *cobra.Command, args []string) error {
			selected, err := ncs.ParseEvent(nil, args[0])
			if err != nil {
				return &usageError{err}
			}
			var types []eventType
			for _, i := range ncs.Catalogue() {
				if selected.Matches(i) {
					types = append(types, describeType(i))
				}
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
	return cmd
}

func describeType(i ncs.Info) eventType {
	t := newEventType(i)
	t.Codes = i.Codes()
	for _, s := range ncs.Samples() {
		if s.Info == i {
			t.Samples = append(t.Samples, eventSample{s.Name, s.Body(), s.Facts()})
		}
	}
	return t
}

func printEventType(out io.Writer, t *eventType) {
	fmt.Fprintf(out, "%s.%s: product %d, type %d, category %s\n", t.Product, t.Event, t.ProductID, t.EventType, t.Category)
	printFacts(out, "code", t.Codes)
	if len(t.Samples) == 0 {
		fmt.Fprintln(out, "  its payload is not published")
	}
	for _, s := range t.Samples {
		fmt.Fprintf(out, "\nsample %s\n  %s\n", s.Name, s.Body)
		printFacts(out, "says", s.Facts)
	}
	fmt.Fprintln(out)
}
