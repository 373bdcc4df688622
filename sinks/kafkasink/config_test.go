package kafkasink_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/kafkaconn"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
	"ncs-relay/sinks/kafkasink"
)

// configured is a configuration with its defaults.
func configured(brokers []string, topic string) kafkasink.Config {
	var cfg kafkasink.Config
	cfg.SetDefaults()
	cfg.Brokers, cfg.Topic = brokers, topic
	return cfg
}

func TestCheckReportsEveryMistake(t *testing.T) {
	t.Parallel()
	broker := []string{"k1.internal:9092"}
	for name, test := range map[string]struct {
		brokers []string
		topic   string
		want    []string // path: problem
	}{
		"good":                  {append(broker, "[::1]:9093"), "ncs.{product}.{category}-{event}", nil},
		"nothing":               {nil, "", []string{"brokers: no broker given", "topic: no topic given"}},
		"several in one":        {[]string{"k1:9092, k2:9092,", "k3:9092"}, "t", nil},
		"one of several":        {[]string{"k1:9092,k2"}, "t", []string{`brokers[0]: "k2" is not host:port`}},
		"empty":                 {[]string{" "}, "t", []string{`brokers[0]: " " is not host:port`}},
		"no port":               {[]string{"k1"}, "t", []string{`brokers[0]: "k1" is not host:port`}},
		"no host":               {[]string{":9092"}, "t", []string{`brokers[0]: ":9092" has no host`}},
		"odd ports":             {[]string{"k1:0", "k2:65536", "k3:kafka"}, "t", []string{`brokers[0]: "k1:0" has no valid port`, `brokers[1]: "k2:65536" has no valid port`, `brokers[2]: "k3:kafka" has no valid port`}},
		"unknown placeholder":   {broker, "ncs.{entity}", []string{`topic: topic "ncs.{entity}": {entity} is not a placeholder`}},
		"open placeholder":      {broker, "ncs.{product", []string{`topic: topic "ncs.{product" has a { without }`}},
		"closing brace alone":   {broker, "ncs.product}", []string{`topic: "ncs.product}" is not a legal topic`}},
		"illegal character":     {broker, "ncs/events", []string{`topic: "ncs/events" is not a legal topic`}},
		"dots":                  {broker, "..", []string{`topic: ".." is not a legal topic`}},
		"too long":              {broker, strings.Repeat("x", 250), []string{`topic: topic "` + strings.Repeat("x", 250) + `" has 250 characters, Kafka allows 249`}},
		"as long as is allowed": {broker, strings.Repeat("x", 249), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := configured(test.brokers, test.topic)
			var got []string
			cfg.Check(func(path, message, hint string, values ...any) {
				message, hint = problem.Text(nil, message, hint, values...)
				got = append(got, path+": "+message)
				require.NotEmpty(t, hint)
			})
			require.Empty(t, cmp.Diff(test.want, got))
		})
	}
}

func TestATemplateIsTooLongWhenOneOfItsTopicsIs(t *testing.T) {
	t.Parallel()
	cfg := configured([]string{"k1:9092"}, strings.Repeat("x", 240)+"{event}")
	problems := 0
	cfg.Check(func(path, message, hint string, values ...any) {
		problems++
		message, _ = problem.Text(nil, message, hint, values...)
		require.Contains(t, message, "Kafka allows 249")
	})
	require.Equal(t, 1, problems)
}

func TestTopicsAreMadeOfCatalogueNamesOnly(t *testing.T) {
	t.Parallel()
	cfg := kafkasink.Config{Topic: "ncs.{product}.{category}.{event}"}
	got := cfg.Topics([]ncs.Info{
		ncs.Builtin().Lookup(3, 31),
		ncs.Builtin().Lookup(3, 31),
		ncs.Builtin().Lookup(3, 99_999),
		ncs.Builtin().Lookup(99_999, 1),
		{},
	})
	require.Empty(t, cmp.Diff([]string{
		"ncs.cloud_recording.unknown.unknown",
		"ncs.cloud_recording.uploader.uploaded",
		"ncs.unknown.unknown.unknown",
	}, got))
}

func TestATopicWithoutPlaceholdersIsOne(t *testing.T) {
	t.Parallel()
	cfg := kafkasink.Config{Topic: "ncs"}
	require.Equal(t, []string{"ncs"}, cfg.Topics(ncs.Builtin().Types()))
}

func TestWarningsAboutSecretsThatOthersCanRead(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		tls  *keyfile.TLS
		sasl *kafkaconn.SASL
		want []string
	}{
		"nothing":                  {nil, nil, nil},
		"TLS":                      {&keyfile.TLS{}, &kafkaconn.SASL{Mechanism: "plain"}, nil},
		"any certificate":          {&keyfile.TLS{InsecureSkipVerify: true}, nil, []string{"tls.insecure_skip_verify"}},
		"password in clear":        {nil, &kafkaconn.SASL{Mechanism: "plain"}, []string{"sasl.mechanism"}},
		"token in clear":           {nil, &kafkaconn.SASL{Mechanism: "oauthbearer"}, []string{"sasl.mechanism"}},
		"SCRAM keeps it to itself": {nil, &kafkaconn.SASL{Mechanism: "scram-sha-512"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := configured([]string{"k1:9092"}, "t")
			cfg.TLS, cfg.SASL = test.tls, test.sasl
			var got []string
			cfg.Warn(func(path, _, _ string, _ ...any) { got = append(got, path) })
			require.Equal(t, test.want, got)
		})
	}
}
