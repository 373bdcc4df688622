package kafkaconn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"ncs-relay/relay"
)

// tokenSource gives OAuth tokens. It may be asked by several connections at once.
type tokenSource interface {
	token(ctx context.Context) (relay.Secret, error)
}

func (c *SASL) checkTokenURL(report func(path, problem, hint string)) {
	// The address may hold a secret, so it is not shown.
	if u, err := url.Parse(c.TokenURL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		report("token_url", "is not an http or https address without user", "for example https://id.example.com/oauth2/token")
	}
	if c.ClientID == "" {
		report("client_id", "no client id given", "")
	}
	checkSecret(report, "client_secret", c.ClientSecret, c.ClientSecretFile)
}

func (c *SASL) tokenSource() tokenSource {
	if c.TokenFile != "" {
		return tokenFile(c.TokenFile)
	}
	return &tokenEndpoint{SASL: c, client: &http.Client{
		Timeout:       tokenTimeout,
		Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},    // it is asked once in a while
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // our secret is for this address
	}}
}

// tokenFile is a file that something else keeps fresh.
type tokenFile string

func (f tokenFile) token(context.Context) (relay.Secret, error) { return relay.ReadSecret(string(f)) }

// tokenEndpoint gets tokens by client credentials (RFC 6749, section 4.4) and keeps one while it is valid.
type tokenEndpoint struct {
	*SASL
	client *http.Client

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
	form := url.Values{"grant_type": {"client_credentials"}}
	if len(e.Scopes) > 0 {
		form.Set("scope", strings.Join(e.Scopes, " "))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.TokenURL, strings.NewReader(form.Encode()))
	if err != nil {
		return token, 0, errors.New("token_url is not an address")
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Accept", "application/json")
	request.SetBasicAuth(url.QueryEscape(e.ClientID), url.QueryEscape(secret.Reveal())) // section 2.3.1 asks for the escaping
	response, err := e.client.Do(request)
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

// oauthError is the form of the codes of section 5.2, such as invalid_client.
var oauthError = regexp.MustCompile(`^[a-z_]{1,40}$`)

func readToken(status int, body io.Reader) (token relay.Secret, lifetime time.Duration, err error) {
	var reply struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int64  `json:"expires_in"` // seconds
		Error       string `json:"error"`
	}
	parseErr := json.NewDecoder(body).Decode(&reply)
	switch {
	case status != http.StatusOK && parseErr == nil && oauthError.MatchString(reply.Error):
		return token, 0, fmt.Errorf("the token endpoint answers %d, %s", status, reply.Error)
	case status != http.StatusOK:
		return token, 0, fmt.Errorf("the token endpoint answers %d", status)
	case parseErr != nil || reply.AccessToken == "":
		return token, 0, errors.New("the token endpoint's answer holds no access_token")
	}
	if reply.ExpiresIn <= 0 {
		reply.ExpiresIn = 60
	}
	return relay.NewSecret(reply.AccessToken), time.Duration(min(reply.ExpiresIn, 24*3600)) * time.Second, nil
}
