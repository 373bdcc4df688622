package kafkasink_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay"
	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/kafkaconn/kafkatest"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/problem"
	"ncs-relay/sinks/kafkasink"
)

// Credentials that must be in no error and no log line.
const (
	password      = "p4ssw0rd-of-the-relay"
	wrongPassword = "wr0ng-p4ssw0rd"
	clientSecret  = "s3cret-of-the-client"
)

// TestRealKafkaSecurity connects to listeners of a real broker, which knows the user relay with the right to write the topic
// "secured", and the user guest with none.
func TestRealKafkaSecurity(t *testing.T) {
	t.Parallel()
	pki := newPKI(t)
	jaas := func(mechanism, rest string) string {
		return map[string]string{
			"plain":       "org.apache.kafka.common.security.plain.PlainLoginModule required " + rest + ";",
			"scram":       "org.apache.kafka.common.security.scram.ScramLoginModule required;",
			"oauthbearer": `org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`,
		}[mechanism]
	}
	users := `user_relay="` + password + `" user_guest="` + password + `"`
	config := map[string]string{
		"producer.id.expiration.check.interval.ms":                          "100",
		"authorizer.class.name":                                             "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":                                                       "User:ANONYMOUS;User:broker", // of the plain listener: the test itself
		"ssl.keystore.type":                                                 "PEM",
		"ssl.truststore.type":                                               "PEM",
		"ssl.keystore.location":                                             pki.pair("broker", validFor),
		"ssl.truststore.location":                                           pki.ca,
		"listener.name.mtls.ssl.client.auth":                                "required",
		"listener.name.mtls.ssl.principal.mapping.rules":                    "RULE:^CN=([a-z]+).*$/$1/",
		"listener.name.expired.ssl.keystore.location":                       pki.pair("broker-expired", expired),
		"listener.name.short.sasl.enabled.mechanisms":                       "PLAIN",
		"listener.name.short.plain.sasl.jaas.config":                        jaas("plain", users),
		"listener.name.short.plain.connections.max.reauth.ms":               "3000",
		"listener.name.sasl.sasl.enabled.mechanisms":                        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
		"listener.name.sasl.plain.sasl.jaas.config":                         jaas("plain", users),
		"listener.name.sasl.scram-sha-256.sasl.jaas.config":                 jaas("scram", ""),
		"listener.name.sasl.scram-sha-512.sasl.jaas.config":                 jaas("scram", ""),
		"listener.name.sasl.oauthbearer.sasl.jaas.config":                   jaas("oauthbearer", ""),
		"listener.name.sasl.oauthbearer.sasl.server.callback.handler.class": "org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler",
	}
	cluster := kafkatest.Start(t, kafkatest.Options{
		Config: config,
		Listeners: []kafkatest.Listener{
			{Name: "MTLS", Protocol: "SSL"}, {Name: "EXPIRED", Protocol: "SSL"},
			{Name: "SASL", Protocol: "SASL_SSL"}, {Name: "SHORT", Protocol: "SASL_PLAINTEXT"},
		},
		Format: []string{
			"--add-scram", "SCRAM-SHA-256=[name=relay,password=" + password + "]",
			"--add-scram", "SCRAM-SHA-512=[name=relay,password=" + password + "]",
		},
	})
	cluster.CreateTopic(t, "secured", 1, nil)
	cluster.AllowWrite(t, "relay", "secured")
	s := &secured{cluster: cluster, pki: pki}

	t.Run("taken", func(t *testing.T) { s.taken(t) })
	t.Run("refused", func(t *testing.T) { s.refused(t) })
	t.Run("files are read again", func(t *testing.T) { s.filesAreReadAgain(t) })
	t.Run("a session that ends costs nothing", func(t *testing.T) { s.sessionEnds(t) })
	t.Run("a forgotten producer goes on", func(t *testing.T) { s.forgotten(t) })
	t.Run("check --connect", func(t *testing.T) { s.connect(t) })
}

type secured struct {
	cluster *kafkatest.Cluster
	pki     *pki
}

func (s *secured) config(listener string) kafkasink.Config {
	cfg := configured(s.cluster.AddressesOf(listener), "secured")
	if listener != "SHORT" {
		cfg.TLS = &keyfile.TLS{CAFile: s.pki.ca}
	}
	return cfg
}

func (s *secured) sasl(mechanism, username, secret string) kafkasink.Config {
	cfg := s.config("SASL")
	cfg.SASL = &kafkaconn.SASL{Mechanism: mechanism, Username: username, Password: relay.NewSecret(secret)}
	return cfg
}

func (s *secured) mtls(cert, key string) kafkasink.Config {
	cfg := s.config("MTLS")
	cfg.TLS.CertFile, cfg.TLS.KeyFile = cert, key
	return cfg
}

func (s *secured) taken(t *testing.T) {
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, secret, _ := r.BasicAuth()
		if r.ParseForm() != nil || r.Form.Get("grant_type") != "client_credentials" || r.Form.Get("scope") != "kafka write" ||
			id != "relay" || secret != clientSecret {
			http.Error(w, `{"error":"invalid_client"}`, http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"access_token":%q,"expires_in":3600,"token_type":"Bearer"}`, token("relay", time.Hour))
	}))
	defer tokens.Close()
	byFile, byEndpoint := s.config("SASL"), s.config("SASL")
	byFile.SASL = &kafkaconn.SASL{Mechanism: "oauthbearer", TokenFile: s.pki.file("token", token("relay", time.Hour))}
	byEndpoint.SASL = &kafkaconn.SASL{Mechanism: "oauthbearer", TokenURL: tokens.URL, ClientID: "relay",
		ClientSecret: relay.NewSecret(clientSecret), Scopes: []string{"kafka", "write"}}
	named := s.sasl("plain", "relay", password)
	named.TLS.ServerName = "kafka.internal" // a name of the broker's certificate
	for name, cfg := range map[string]kafkasink.Config{
		"client certificate":                  s.mtls(s.pki.split("relay", validFor)),
		"PLAIN":                               s.sasl("plain", "relay", password),
		"SCRAM-SHA-256":                       s.sasl("scram-sha-256", "relay", password),
		"SCRAM-SHA-512":                       s.sasl("scram-sha-512", "relay", password),
		"OAUTHBEARER with a token file":       byFile,
		"OAUTHBEARER with client credentials": byEndpoint,
		"server name":                         named,
	} {
		t.Run(name, func(t *testing.T) {
			requireCheck(t, cfg)
			sink := newSinkOf(t, cfg, discard)
			batch := attempts("e", "by "+name)
			send(t, sink, learn(t, sink, batch), batch)
			var found []string
			for _, r := range s.cluster.Consume(t, "secured") {
				found = append(found, string(r.Value))
			}
			require.Contains(t, found, "by "+name)
		})
	}
}

func requireCheck(t *testing.T, cfg kafkasink.Config) {
	t.Helper()
	report := func(path, message, hint string, values ...any) {
		message, _ = problem.Text(nil, message, hint, values...)
		t.Errorf("%s: %s", path, message)
	}
	cfg.Check(report)
	if cfg.TLS != nil {
		cfg.TLS.Check(report)
	}
	if cfg.SASL != nil {
		cfg.SASL.Check(report)
	}
}

func (s *secured) refused(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, secret, _ := r.BasicAuth()
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, `{"error":"invalid_client","error_description":"%s is wrong"}`, secret)
	}))
	defer refusing.Close()
	badClient, badToken, oldToken := s.config("SASL"), s.config("SASL"), s.config("SASL")
	badClient.SASL = &kafkaconn.SASL{Mechanism: "oauthbearer", TokenURL: refusing.URL, ClientID: "relay", ClientSecret: relay.NewSecret(clientSecret)}
	badToken.SASL = &kafkaconn.SASL{Mechanism: "oauthbearer", TokenFile: s.pki.file("bad-token", wrongPassword)}
	oldToken.SASL = &kafkaconn.SASL{Mechanism: "oauthbearer", TokenFile: s.pki.file("old-token", token("relay", -time.Hour))}
	stranger := s.config("MTLS")
	otherCA := s.config("SASL")
	otherCA.TLS.CAFile = newPKI(t).ca
	otherCA.SASL = s.sasl("plain", "relay", password).SASL
	otherName := s.sasl("plain", "relay", password)
	otherName.TLS.ServerName = "elsewhere.internal"
	noSASL := s.config("SASL")
	noMechanism := s.config("SHORT")
	noMechanism.SASL = s.sasl("scram-sha-512", "relay", password).SASL
	for name, test := range map[string]struct {
		cfg    kafkasink.Config
		reason relay.Reason
		words  string
	}{
		"wrong password, PLAIN":                            {s.sasl("plain", "relay", wrongPassword), relay.ReasonAuth, "do not accept the SASL credentials"},
		"wrong password, SCRAM-SHA-256":                    {s.sasl("scram-sha-256", "relay", wrongPassword), relay.ReasonAuth, "do not accept the SASL credentials"},
		"wrong password, SCRAM-SHA-512":                    {s.sasl("scram-sha-512", "relay", wrongPassword), relay.ReasonAuth, "do not accept the SASL credentials"},
		"no token at all":                                  {badToken, relay.ReasonAuth, "do not accept the SASL credentials"},
		"expired token":                                    {oldToken, relay.ReasonAuth, "do not accept the SASL credentials"},
		"no token to be had":                               {badClient, relay.ReasonAuth, "the token endpoint answers 401, invalid_client"},
		"mechanism not offered":                            {noMechanism, relay.ReasonAuth, "do not offer the SASL mechanism"},
		"no rule for the topic":                            {s.sasl("plain", "guest", password), relay.ReasonAuth, "access rules of the cluster do not let this user do that with the topic"},
		"the broker's certificate expired":                 {s.config("EXPIRED"), relay.ReasonTLS, "certificate has expired"},
		"the broker's certificate is of another authority": {otherCA, relay.ReasonTLS, "unknown authority"},
		"the broker's certificate is for another name":     {otherName, relay.ReasonTLS, "elsewhere.internal"},
		"our certificate expired":                          {s.mtls(s.pki.split("relay-expired", expired)), relay.ReasonTLS, "certificate"},
		"no certificate of ours":                           {stranger, relay.ReasonTLS, "certificate"},
		"no SASL where it is asked for":                    {noSASL, relay.ReasonConnection, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			sink := newSinkOf(t, test.cfg, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			batch := attempts("e", "x")
			_, err := sink.Send(t.Context(), sink.Lane(batch[0].Event), batch)
			t.Log(err)
			require.Error(t, err)
			require.False(t, relay.IsPermanent(err), "it can be put right, and the event is not at fault")
			require.ErrorContains(t, err, test.words)
			require.Equal(t, test.reason, relay.ReasonOf(err))
			for _, secret := range []string{password, wrongPassword, clientSecret, base64.StdEncoding.EncodeToString([]byte(clientSecret))} {
				require.NotContains(t, err.Error()+log.String(), secret)
			}
		})
	}
}

// filesAreReadAgain puts right what was wrong in files. The sink is told nothing.
func (s *secured) filesAreReadAgain(t *testing.T) {
	byPassword := s.sasl("plain", "relay", "")
	byPassword.SASL.Password = relay.Secret{}
	byPassword.SASL.PasswordFile = s.pki.file("password", wrongPassword+"\n")
	byToken := s.config("SASL")
	byToken.SASL = &kafkaconn.SASL{Mechanism: "oauthbearer", TokenFile: s.pki.file("a-token", wrongPassword)}
	cert, key := newPKI(t).split("relay", validFor) // of another authority
	byCertificate := s.mtls(cert, key)
	otherCA := s.sasl("plain", "relay", password)
	otherCA.TLS.CAFile = newPKI(t).ca
	goodCert, goodKey := s.pki.split("relay-good", validFor)
	for name, test := range map[string]struct {
		cfg   kafkasink.Config
		right func(t *testing.T)
	}{
		"password":    {byPassword, func(t *testing.T) { s.pki.file("password", password+"\n") }},
		"token":       {byToken, func(t *testing.T) { s.pki.file("a-token", token("relay", time.Hour)) }},
		"certificate": {byCertificate, func(t *testing.T) { copyFile(t, goodCert, cert); copyFile(t, goodKey, key) }},
		"authorities": {otherCA, func(t *testing.T) { copyFile(t, s.pki.ca, otherCA.TLS.CAFile) }},
	} {
		t.Run(name, func(t *testing.T) {
			sink := newSinkOf(t, test.cfg, discard)
			batch := attempts("e", "x")
			_, err := sink.Send(t.Context(), sink.Lane(batch[0].Event), batch)
			require.Error(t, err)
			require.NotErrorIs(t, err, relay.ErrRelane)
			test.right(t)
			require.Eventually(t, func() bool { // an answer holds for as long as one look at the cluster does
				_, err = sink.Send(t.Context(), sink.Lane(batch[0].Event), batch)
				return err == relay.ErrRelane
			}, 20*time.Second, 20*time.Millisecond)
		})
	}
}

// sessionEnds sends for longer than the broker lets a connection live after it was authenticated.
func (s *secured) sessionEnds(t *testing.T) {
	cfg := s.config("SHORT")
	cfg.SASL = s.sasl("plain", "relay", password).SASL
	var log bytes.Buffer
	sink := newSinkOf(t, cfg, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	lane := learn(t, sink, attempts("e", "x"))
	for began, i := time.Now(), 0; time.Since(began) < 8*time.Second; i++ {
		batch := attempts("session", fmt.Sprint(i))
		taken, err := sink.Send(t.Context(), lane, batch)
		require.NoError(t, err)
		require.Equal(t, 1, taken)
	}
	require.NotContains(t, log.String(), "made again", "no connection was cut under a request")
	require.NotContains(t, log.String(), "gives no producer ids", "the right to write is enough")
}

// forgotten sends again after the broker has forgotten the producer, as it does a day after its last record.
func (s *secured) forgotten(t *testing.T) {
	s.cluster.CreateTopic(t, "forgotten", 1, nil)
	sink := newSinkOf(t, configured(s.cluster.Addresses(), "forgotten"), discard)
	batch := attempts("e", "a", "b", "c")
	lane := learn(t, sink, batch)
	send(t, sink, lane, batch[:2])
	require.NotZero(t, s.cluster.Producers(t, "forgotten"))
	s.cluster.Configure(t, "producer.id.expiration.ms", "1")
	require.Eventually(t, func() bool { return s.cluster.Producers(t, "forgotten") == 0 }, 20*time.Second, 100*time.Millisecond)
	taken, err := sink.Send(t.Context(), lane, batch[2:])
	require.NoError(t, err)
	require.Equal(t, 1, taken)
	require.Equal(t, []string{"a", "b", "c"}, values(s.cluster.Read(t, "forgotten")))
}

func (s *secured) connect(t *testing.T) {
	connect := func(cfg kafkasink.Config, topics ...string) (problems []string) {
		for _, err := range newSinkOf(t, cfg, discard).Connect(context.Background(), topics) {
			problems = append(problems, err.Error()+" ("+string(relay.ReasonOf(err))+")")
		}
		t.Log(problems)
		return problems
	}
	good, creating := s.sasl("plain", "relay", password), configured(s.cluster.Addresses(), "secured")
	creating.CreateTopics = &kafkasink.CreateTopics{}
	require.Empty(t, connect(good, "secured"))
	require.Empty(t, connect(creating, "missing"))
	missing := connect(configured(s.cluster.Addresses(), "secured"), "secured", "missing")
	require.Len(t, missing, 1)
	require.Contains(t, missing[0], "topic missing does not exist on the cluster")
	require.Contains(t, connect(s.sasl("plain", "guest", password), "secured")[0], "do not let this user do that with the topic")
	require.Contains(t, connect(s.sasl("plain", "relay", wrongPassword), "secured")[0], "do not accept the SASL credentials")
	require.Contains(t, connect(s.config("EXPIRED"), "secured")[0], "expired")
	require.Contains(t, connect(configured([]string{"127.0.0.1:1"}, "secured"), "secured")[0], "refused")

	s.cluster.AllowDescribe(t, "guest", "secured")
	require.Contains(t, connect(s.sasl("plain", "guest", password), "secured")[0], "do not let this user do that with the topic", "it may read")
}

// token is an unsecured JSON Web Token, which Kafka's own validator for tests takes.
func token(subject string, lifetime time.Duration) string {
	part := func(v map[string]any) string {
		text, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	now := time.Now().Add(-2 * time.Hour)
	return part(map[string]any{"alg": "none"}) + "." +
		part(map[string]any{"sub": subject, "iat": now.Unix(), "exp": time.Now().Add(lifetime).Unix()}) + "."
}

const (
	validFor = time.Hour
	expired  = -time.Hour
)

// pki is an authority and the folder of what it signed.
type pki struct {
	t    *testing.T
	dir  string
	ca   string // its certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newPKI(t *testing.T) *pki {
	p := &pki{t: t, dir: t.TempDir()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	p.key = key
	p.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	p.ca = p.file("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return p
}

func (p *pki) file(name, content string) string {
	path := filepath.Join(p.dir, name)
	require.NoError(p.t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func (p *pki) sign(name string, lifetime time.Duration) (cert, key string) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(p.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: strings.TrimSuffix(name, "-good")},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(lifetime),
		DNSNames: []string{"kafka.internal"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, &private.PublicKey, p.key)
	require.NoError(p.t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(p.t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

// pair is a file with a certificate and its key.
func (p *pki) pair(name string, lifetime time.Duration) string {
	cert, key := p.sign(name, lifetime)
	return p.file(name+".pem", key+cert)
}

// split is a file with a certificate and one with its key.
func (p *pki) split(name string, lifetime time.Duration) (cert, key string) {
	cert, key = p.sign(name, lifetime)
	return p.file(name+".crt", cert), p.file(name+".key", key)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to, data, 0o600))
}
