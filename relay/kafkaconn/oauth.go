package kafkaconn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/problem"
)

// tokenSource gives OAuth tokens. It may be asked by several connections at once.
type tokenSource interface {
	token(ctx context.Context) (relay.Secret, error)
}

func (c *SASL) checkTokenURL(report problem.Report) {
	// The address may hold a secret, so it is not shown.
	if u, err := url.Parse(c.TokenURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		report("token_url", "is not an http or https address without user", "for example https://id.example.com/oauth2/token")
	}
	if c.ClientID == "" {
		report("client_id", "no client id given", "")
	}
	checkSecret(report, "client_secret", c.ClientSecret, c.ClientSecretFile)
	if c.AuthStyle != "" && c.AuthStyle != authInHeader && c.AuthStyle != authInBody {
		report("auth_style", "unknown auth_style %q", "use header or body", c.AuthStyle)
	}
	for _, name := range slices.Sorted(maps.Keys(c.TokenForm)) {
		if slices.Contains([]string{"grant_type", "scope", "client_id", "client_secret"}, name) {
			report("token_form["+name+"]", "%q is set by other keys", "use scopes, client_id and client_secret", name)
		}
	}
}

// How client id and secret go to the token endpoint (RFC 6749, section 2.3.1).
const (
	authInHeader = "header"
	authInBody   = "body"
)

func (c *SASL) tokenSource() tokenSource {
	if c.TokenFile != "" {
		return tokenFile(c.TokenFile)
	}
	e := &tokenEndpoint{SASL: c}
	if c.TokenTLS != nil {
		e.follower = &keyfile.Follower{TLS: c.TokenTLS}
	}
	return e
}

// tokenFile is a file that something else keeps fresh.
type tokenFile string

func (f tokenFile) token(context.Context) (relay.Secret, error) { return relay.ReadSecret(string(f)) }

// tokenEndpoint gets tokens by client credentials (RFC 6749, section 4.4) and keeps one while it is valid.
type tokenEndpoint struct {
	*SASL
	follower *keyfile.Follower // nil = TLS as Go has it

	mu     sync.Mutex // guards what follows, also while a token is asked for: those who come then want the same
	cached relay.Secret
	until  time.Time
}

const (
	tokenTimeout  = 4 * time.Second // below dialTimeout, which it is a part of
	maxTokenReply = 256 << 10
	tokenMargin   = 30 * time.Second // before its end a token is replaced; shorter lives are used for half of their time
)

func (e *tokenEndpoint) token(ctx context.Context) (relay.Secret, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now := time.Now(); now.Before(e.until) {
		return e.cached, nil
	}
	token, lifetime, err := e.fetch(ctx)
	if err != nil {
		return relay.Secret{}, err
	}
	e.cached, e.until = token, time.Now().Add(max(lifetime-tokenMargin, lifetime/2))
	return token, nil
}

// fetch asks for a token. Its errors hold nothing that the endpoint says freely, which may repeat what was sent.
func (e *tokenEndpoint) fetch(ctx context.Context) (token relay.Secret, lifetime time.Duration, err error) {
	secret, err := secretOf(e.ClientSecret, e.ClientSecretFile)
	if err != nil {
		return token, 0, err
	}
	request, err := e.request(ctx, secret)
	if err != nil {
		return token, 0, err
	}
	client, err := e.client()
	if err != nil {
		return token, 0, err
	}
	response, err := client.Do(request)
	if err != nil {
		var withURL *url.Error
		if errors.As(err, &withURL) {
			err = withURL.Err
		}
		return token, 0, fmt.Errorf("ask the token endpoint: %w", err)
	}
	defer response.Body.Close()
	return readToken(response.StatusCode, io.LimitReader(response.Body, maxTokenReply))
}

func (e *tokenEndpoint) request(ctx context.Context, secret relay.Secret) (*http.Request, error) {
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(e.Scopes) > 0 {
		form.Set("scope", strings.Join(e.Scopes, " "))
	}
	for name, value := range e.TokenForm {
		form.Set(name, value)
	}
	if e.AuthStyle == authInBody {
		form.Set("client_id", e.ClientID)
		form.Set("client_secret", secret.Reveal())
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("token_url is not an address")
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	if e.AuthStyle != authInBody {
		request.SetBasicAuth(url.QueryEscape(e.ClientID), url.QueryEscape(secret.Reveal())) // section 2.3.1 asks for the escaping
	}
	return request, nil
}

// client is made for each request, of which there is one in a while.
func (e *tokenEndpoint) client() (*http.Client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	if e.follower != nil {
		config, err := e.follower.Current()
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = config.Clone()
	}
	return &http.Client{
		Timeout:       tokenTimeout,
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // our secret is for this address
	}, nil
}

// oauthError is the form of the codes of section 5.2, such as invalid_client.
var oauthError = regexp.MustCompile(`^[a-z_]{1,40}$`)

// readToken takes a token wherever there is one: what stands beside it is read as far as it can be.
func readToken(status int, body io.Reader) (token relay.Secret, lifetime time.Duration, err error) {
	var reply map[string]any
	parseErr := json.NewDecoder(body).Decode(&reply)
	code, _ := reply["error"].(string)
	access, _ := reply["access_token"].(string)
	switch {
	case status/100 != 2 && oauthError.MatchString(code):
		return token, 0, fmt.Errorf("the token endpoint answers %d, %s", status, code)
	case status/100 != 2:
		return token, 0, fmt.Errorf("the token endpoint answers %d", status)
	case parseErr != nil:
		return token, 0, fmt.Errorf("the token endpoint answers %d, but no JSON object of less than %d bytes; is token_url right?", status, maxTokenReply)
	case access == "" && oauthError.MatchString(code):
		return token, 0, fmt.Errorf("the token endpoint answers %s", code)
	case access == "":
		return token, 0, errors.New("the token endpoint's answer holds no access_token of text; is token_url right?")
	}
	return relay.NewSecret(access), lifetimeOf(reply["expires_in"]), nil
}

const (
	unknownLifetime = time.Minute
	longestLifetime = 24 * time.Hour
)

// lifetimeOf reads expires_in: seconds, as a number or, as some endpoints have it, in a string.
func lifetimeOf(expiresIn any) time.Duration {
	seconds, err := strconv.ParseFloat(fmt.Sprint(expiresIn), 64)
	if err != nil || !(seconds > 0) {
		return unknownLifetime
	}
	return time.Duration(min(seconds, longestLifetime.Seconds()) * float64(time.Second))
}
