package main

import (
	"encoding/json"
	"fmt"
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
	return cmd
}

func printEventsJSON(cmd *cobra.Command, infos []ncs.Info) error {
	type entry struct {
		Product   string `json:"product"`
		ProductID int    `json:"product_id"`
		EventType int    `json:"event_type"`
		Event     string `json:"event"`
		Category  string `json:"category"`
	}
	entries := make([]entry, len(infos))
	for i, info := range infos {
		entries[i] = entry{info.Product, info.ProductID, info.EventType, info.Event, info.Category}
	}
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	return enc.Encode(entries)
}
