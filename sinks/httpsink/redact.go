package httpsink

import (
	"cmp"
	"encoding/json"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const hidden = "<secret>"

const (
	// minSecret is the length from which a configured value is taken for a secret when the far side repeats it.
	// Shorter ones ("1", "eu") protect nothing and would riddle every excerpt.
	minSecret = 4

	// minPathSecret is the same for a segment of the URL's path: some services hand out URLs that are credentials.
	minPathSecret = 16
)

// redactor takes our credentials out of the far side's words: it may answer a refused call by repeating it.
type redactor struct {
	secrets  []string // in each of their spellings
	replacer *strings.Replacer
}

// newRedactor knows all that we send and must not show. cfg holds the secrets of its files too.
func newRedactor(cfg *Config, proxies []*url.Userinfo) *redactor {
	secrets := urlSecrets(cfg.URL)
	add := func(secret string) { secrets = append(secrets, secret) }
	add(cfg.BearerToken.Reveal())
	for _, value := range cfg.Headers {
		add(value.Reveal())
	}
	if cfg.BasicAuth != nil {
		add(cfg.BasicAuth.Password.Reveal())
		add(credentials(cfg.BasicAuth.Username, cfg.BasicAuth.Password.Reveal()))
	}
	if cfg.StandardWebhooks != nil {
		for _, secret := range cfg.StandardWebhooks.Secrets {
			add(strings.TrimPrefix(secret.Reveal(), "whsec_"))
		}
	}
	for _, user := range proxies {
		password, _ := user.Password()
		add(password)
		add(user.String())
		add(credentials(user.Username(), password)) // as the transport sends them to the proxy
	}
	var all []string
	for _, secret := range secrets {
		if len(secret) >= minSecret {
			all = append(all, spellings(secret)...)
		}
	}
	// The longest first: one secret may be the beginning of another.
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	var pairs []string
	for _, secret := range all {
		pairs = append(pairs, secret, hidden)
	}
	return &redactor{all, strings.NewReplacer(pairs...)}
}

// mask also takes away the beginning of a secret at the end of text: an answer may break off, or be longer than what is read.
func (r *redactor) mask(text string) string {
	text = r.replacer.Replace(text)
	longest := 0
	for _, secret := range r.secrets {
		for n := min(len(secret), len(text)); n > longest && n >= minSecret; n-- {
			if strings.HasSuffix(text, secret[:n]) {
				longest = n
			}
		}
	}
	if longest > 0 {
		text = text[:len(text)-longest] + hidden
	}
	return text
}

// urlSecrets are the values of the query and the long segments of the path, without what is filled in per event.
func urlSecrets(raw string) []string {
	var secrets []string
	add := func(text string, least int) {
		if len(text) < least || strings.ContainsAny(text, "{}") {
			return
		}
		secrets = append(secrets, text)
		if plain, err := url.QueryUnescape(text); err == nil && plain != text {
			secrets = append(secrets, plain)
		}
	}
	path, query, _ := strings.Cut(raw, "?")
	for pair := range strings.SplitSeq(query, "&") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			value = name
		}
		add(value, minSecret)
	}
	_, path, _ = strings.Cut(path, "://")
	_, path, _ = strings.Cut(path, "/")
	for segment := range strings.SplitSeq(path, "/") {
		add(segment, minPathSecret)
	}
	return secrets
}

// spellings are the forms in which a far side may repeat a secret: as it is, in a URL, in HTML, in JSON, quoted.
func spellings(secret string) []string {
	forms := []string{secret, url.QueryEscape(secret), url.PathEscape(secret), html.EscapeString(secret)}
	if b, err := json.Marshal(secret); err == nil {
		forms = append(forms, string(b[1:len(b)-1]))
	}
	quoted := strconv.Quote(secret)
	forms = append(forms, quoted[1:len(quoted)-1])
	slices.Sort(forms)
	return slices.Compact(forms)
}

// excerpt makes the far side's words fit for logs: our credentials gone, control characters escaped, cut short.
func (r *redactor) excerpt(text string, most int) string { return escaped(r.mask(text), most) }

func escaped(text string, most int) string {
	var b strings.Builder
	for len(text) > 0 {
		_, size := utf8.DecodeRuneInString(text)
		quoted := strconv.Quote(text[:size])
		piece := quoted[1 : len(quoted)-1]
		if b.Len()+len(piece) > most-len("...") && len(text) > size {
			return b.String() + "..."
		}
		b.WriteString(piece)
		text = text[size:]
	}
	return b.String()
}
