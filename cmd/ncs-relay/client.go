package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"ncs-relay/relay/keyfile"
)

// adminFlags say which relay a command is about.
type adminFlags struct{ address, tokenEnv, tokenFile string }

func (f *adminFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.address, "admin", "http://127.0.0.1:9464", "the admin address of the relay")
	cmd.Flags().StringVar(&f.tokenEnv, "token-env", "", "environment variable that holds the relay's admin.token")
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "", "file that holds it; a trailing newline is trimmed")
}

// client makes what calls that relay. It calls nothing.
func (f *adminFlags) client() (*adminClient, error) {
	address := f.address
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		return nil, usagef("--admin: %q is not an address such as http://127.0.0.1:9464", f.address)
	}
	token, err := f.token()
	if err != nil {
		return nil, err
	}
	return &adminClient{base: strings.TrimSuffix(u.String(), "/"), token: token, http: &http.Client{
		// A redirect could lead to somebody who must not see the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (f *adminFlags) token() (string, error) {
	switch {
	case f.tokenEnv != "" && f.tokenFile != "":
		return "", usagef("only one of --token-env and --token-file")
	case f.tokenEnv != "":
		token := os.Getenv(f.tokenEnv)
		if token == "" {
			return "", usagef("environment variable %s is not set", f.tokenEnv)
		}
		return cleaned(token)
	case f.tokenFile != "":
		return keyfile.Secret(f.tokenFile)
	}
	return "", nil
}

// adminClient calls the admin API of a running relay.
type adminClient struct {
	base, token string
	http        *http.Client
}

func (c *adminClient) get(ctx context.Context, path string, query url.Values, answer any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.call(ctx, http.MethodGet, path, nil, answer)
}

func (c *adminClient) post(ctx context.Context, path string, body, answer any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodPost, path, b, answer)
}

// call decodes the answer into answer, which is nil if there is none. There is no time-out: an operation may take long,
// and whoever waits can interrupt it.
func (c *adminClient) call(ctx context.Context, method, path string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the URL, which is said anyway
		}
		return fmt.Errorf("no relay answers at %s: %w (is it running, and is this its admin.listen? --admin names another)", c.base, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("the relay's answer broke off: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusNoContent && answer == nil:
		return nil
	case resp.StatusCode != http.StatusOK:
		return c.refusal(resp, b)
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s does not answer as a relay of this version (%s): %w", c.base, resp.Status, err)
	}
	return nil
}

// refusal makes an error of an answer that is none, and says what to do.
func (c *adminClient) refusal(resp *http.Response, body []byte) error {
	var said struct{ Error, Reason string }
	_ = json.Unmarshal(body, &said)
	problem := clean(said.Error + said.Reason)
	switch {
	case resp.StatusCode == http.StatusUnauthorized && c.token == "":
		return errors.New("the relay asks for its admin.token: --token-env NAME or --token-file FILE")
	case resp.StatusCode == http.StatusUnauthorized:
		return errors.New("the token is not the relay's admin.token")
	case problem == "", resp.StatusCode == http.StatusNotFound && problem == "not found":
		return fmt.Errorf("%s is not the admin address of a relay of this version: %s", c.base, resp.Status)
	case resp.StatusCode == http.StatusBadRequest:
		return usagef("%s", problem)
	}
	return errors.New(problem)
}
