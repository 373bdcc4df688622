package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ncs-relay/relay/ncs"
)

func sendCommand() *cobra.Command {
	var url string
	var secret secretFlags
	cmd := &cobra.Command{
		Use:   "send --url URL FILE...",
		Short: "Post bodies as NCS would, signed with both signatures",
		Long: `send posts each file, byte for byte, with both signature headers, and prints the answers. - is standard input.
It fails if any answer is not 200.`,
		Args: rangeArgs(1, -1, "at least one file"),
		RunE: func(cmd *cobra.Command, files []string) error {
			if url == "" {
				return usagef("--url is needed")
			}
			key, err := secret.read()
			if err != nil {
				return err
			}
			failed := false
			for _, file := range files {
				body, err := readFileOrStdin(cmd, file)
				if err != nil {
					return err
				}
				status, answer, err := post(cmd.Context(), url, key, body)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %d %s\n", file, status, answer)
				failed = failed || status != http.StatusOK
			}
			if failed {
				return errReported
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&url, "url", "", "where to post")
	secret.add(cmd)
	return cmd
}

// post makes one signed call and gives status and answer.
func post(ctx context.Context, url, secret string, body []byte) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // as NCS
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", usagef("--url: %v", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(ncs.HeaderV1, ncs.SignV1(secret, body))
	req.Header.Set(ncs.HeaderV2, ncs.SignV2(secret, body))
	// NCS knows only 200: a redirect is an answer like any other.
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, strings.TrimSpace(string(answer)), err
}

func readFileOrStdin(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(cmd.InOrStdin())
	}
	return os.ReadFile(name)
}
