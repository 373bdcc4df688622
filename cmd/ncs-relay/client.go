package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"ncs-relay/relay/keyfile"
)

// Variables that save typing which relay a command is about.
const (
	adminVariable     = "NCS_RELAY_ADMIN"
	tokenFileVariable = "NCS_RELAY_TOKEN_FILE"
	defaultAdmin      = "http://127.0.0.1:9464"
)

// adminFlags say which relay a command is about: flags, else a configuration, else variables.
type adminFlags struct {
	cmd                                  *cobra.Command
	address, config, tokenEnv, tokenFile string
}

func (f *adminFlags) add(cmd *cobra.Command) {
	f.addAddress(cmd)
	cmd.Flags().StringVar(&f.tokenEnv, "token-env", "", "environment variable that holds the relay's admin.token")
	cmd.Flags().StringVar(&f.tokenFile, "token-file", "", "file that holds it; a trailing newline is trimmed (default $"+tokenFileVariable+")")
}

func (f *adminFlags) addAddress(cmd *cobra.Command) {
	f.cmd = cmd
	cmd.Flags().StringVar(&f.address, "admin", "", "the admin address of the relay (default $"+adminVariable+", or "+defaultAdmin+")")
	cmd.Flags().StringVarP(&f.config, "config", "c", "", "take address and token from admin of this configuration")
}

// client makes what calls that relay. It calls nothing.
func (f *adminFlags) client() (*adminClient, error) {
	base, given, err := f.base()
	if err != nil {
		return nil, err
	}
	token, err := f.token()
	if err != nil {
		return nil, err
	}
	if token = cmp.Or(token, given); token == "" && os.Getenv(tokenFileVariable) != "" {
		if token, err = keyfile.Secret(os.Getenv(tokenFileVariable)); err != nil {
			return nil, fmt.Errorf("%s: %w", tokenFileVariable, err)
		}
	}
	c := &adminClient{base: base, token: token, missing: newMissing(f.cmd.ErrOrStderr()), http: &http.Client{
		// A redirect could lead to somebody who must not see the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	// Whatever a command shows of what it did, it has failed where that is not all.
	f.cmd.PostRunE = func(*cobra.Command, []string) error { return c.missing.err }
	return c, nil
}

// base is the address of the relay, with the token if the same configuration has both.
func (f *adminFlags) base() (base, token string, err error) {
	if f.config != "" {
		if f.address != "" {
			return "", "", usagef("--admin cannot be combined with --config")
		}
		return f.configured()
	}
	from, address := "--admin", f.address
	if address == "" {
		from, address = adminVariable, cmp.Or(os.Getenv(adminVariable), defaultAdmin)
	}
	full := address
	if !strings.Contains(full, "://") {
		full = "http://" + full
	}
	u, err := url.Parse(full)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.User != nil {
		return "", "", usagef("%s: %q is not an address such as %s", from, address, defaultAdmin)
	}
	return strings.TrimSuffix(u.String(), "/"), "", nil
}

// configured is where the relay of a configuration listens, as this machine reaches it.
func (f *adminFlags) configured() (base, token string, err error) {
	cfg, err := loadAway(f.cmd, f.config, "admin.listen")
	if err != nil {
		return "", "", err
	}
	host, port, err := net.SplitHostPort(cfg.Admin.Listen)
	if err != nil || port == "0" {
		return "", "", fmt.Errorf("%s: admin.listen %q is no address to call; --admin names one", f.config, cfg.Admin.Listen)
	}
	switch ip := net.ParseIP(host); {
	case host == "" || ip.Equal(net.IPv4zero):
		host = "127.0.0.1"
	case ip.IsUnspecified():
		host = "::1"
	}
	token = cfg.Admin.Token.Reveal()
	if named := cfg.Admin.Tokens; token == "" && len(named) == 1 {
		token = named[0].Token.Reveal()
	}
	return "http://" + net.JoinHostPort(host, port), token, nil
}

// token is the one that flags give.
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
	missing     *missing
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
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
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
	c.missing.note(method, path, body, b)
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s does not answer as a relay of this version (%s): %w", c.base, resp.Status, err)
	}
	return nil
}

// do makes a call.
func (c *adminClient) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
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
		return nil, fmt.Errorf("no relay answers at %s: %w (is it running, and is this its admin.listen? --admin, -c or $%s names another)", c.base, err, adminVariable)
	}
	return resp, nil
}

// refusal makes an error of an answer that is none, and says what to do.
func (c *adminClient) refusal(resp *http.Response, body []byte) error {
	var said struct{ Error, Reason string }
	_ = json.Unmarshal(body, &said)
	problem := clean(said.Error + said.Reason)
	switch {
	case resp.StatusCode == http.StatusUnauthorized && c.token == "":
		return errors.New("the relay asks for its admin.token: --token-env NAME, --token-file FILE or $" + tokenFileVariable)
	case resp.StatusCode == http.StatusUnauthorized:
		return errors.New("the token is not the relay's admin.token")
	case problem == "", resp.StatusCode == http.StatusNotFound && problem == "not found":
		return fmt.Errorf("%s is not the admin address of a relay of this version: %s", c.base, resp.Status)
	case resp.StatusCode == http.StatusBadRequest:
		return usagef("%s", problem)
	}
	return errors.New(problem)
}
