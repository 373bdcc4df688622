package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func healthCommand() *cobra.Command {
	var admin adminFlags
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running relay whether it can store notifications (for container health checks)",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			base, _, err := admin.base()
			if err != nil {
				return err
			}
			return checkHealth(cmd.Context(), cmd.OutOrStdout(), base)
		},
	}
	admin.addAddress(cmd)
	return cmd
}

func checkHealth(ctx context.Context, out io.Writer, base string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the relay does not answer: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("the relay's answer broke off: %w", err)
	}
	text := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s: %s", resp.Status, text)
	}
	fmt.Fprintln(out, text)
	return nil
}
