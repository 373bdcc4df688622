// Package kafkaconn holds connections to the brokers of a Kafka cluster and brings requests to those they are for, over TLS
// and SASL where that is configured.
//
// It promises that no request waits longer than its context for a broker that hangs, that a partition is followed to its
// next leader at once, and that files with secrets and certificates are read again for each new connection. What is asked
// and what an answer means, and when to try again, is left to those who ask.
package kafkaconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"ncs-relay/relay"
	"ncs-relay/relay/keyfile"
	"ncs-relay/relay/problem"
)

// Config says where a cluster is and how to connect to it. Brokers, TLS and SASL must have passed their checks.
type Config struct {
	Brokers  []string     // as SplitBrokers returns them: host:port of a few brokers; the rest of the cluster is found through them
	ClientID string       // shows up in the brokers' logs, metrics and quotas
	TLS      *keyfile.TLS // nil = connections are not encrypted
	SASL     *SASL        // nil = we do not say who we are

	Logger *slog.Logger // default: none
}

// SplitBrokers returns the addresses in list. An entry may hold several with commas between them, as one variable of the
// environment often does.
func SplitBrokers(list []string) []string {
	var addresses []string
	for _, entry := range list {
		for address := range strings.SplitSeq(entry, ",") {
			if address = strings.TrimSpace(address); address != "" {
				addresses = append(addresses, address)
			}
		}
	}
	return addresses
}

// CheckBrokers reports what is wrong with the addresses of brokers, at the path "brokers".
func CheckBrokers(brokers []string, report problem.Report) {
	if len(brokers) == 0 {
		report("brokers", "no broker given", `brokers: ["kafka-1.internal:9092"]`)
	}
	for i, entry := range brokers {
		addresses := SplitBrokers([]string{entry})
		if len(addresses) == 0 {
			addresses = []string{entry}
		}
		for _, address := range addresses {
			if problem := checkHostPort(address); problem != "" {
				report(fmt.Sprintf("brokers[%d]", i), "%q "+problem, "write host:port, for example kafka-1.internal:9092", address)
			}
		}
	}
}

func checkHostPort(address string) string {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return "is not host:port"
	case host == "":
		return "has no host"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "has no valid port"
	}
	return ""
}

// WarnOfSecrets reports connections on which others can read what they must not.
func WarnOfSecrets(t *keyfile.TLS, s *SASL, report problem.Report) {
	if t != nil && t.InsecureSkipVerify {
		report("tls.insecure_skip_verify", "the certificates of the brokers are not verified: anybody on the way can read events and credentials", "use ca_file")
	}
	if t == nil && s != nil && (s.Mechanism == saslPlain || s.Mechanism == saslOAuthBearer) {
		report("sasl.mechanism", "%q sends its secret as it is, and there is no TLS", "add tls: {}", s.Mechanism)
	}
}

// Answer returns an answer as what it must be: the response to the request that was made.
func Answer[T protocol.Message](answer protocol.Message, err error) (response T, _ error) {
	if err != nil {
		return response, err
	}
	response, ok := answer.(T)
	if !ok {
		return response, fmt.Errorf("unexpected response %T", answer)
	}
	return response, nil
}

// Leaderless reports whether a request to the leader of a partition failed because the partition is being given another one.
// The request can be sent again, byte for byte, after a look at the cluster.
func Leaderless(err error) bool {
	var code kafka.Error
	if errors.As(err, &code) {
		switch code {
		case kafka.NotLeaderForPartition, kafka.LeaderNotAvailable, kafka.ReplicaNotAvailable, kafka.FencedLeaderEpoch,
			kafka.RequestTimedOut: // the leader waited for a replica that is not yet known to be gone
			return true
		}
		return false
	}
	switch relay.ReasonOf(err) {
	case relay.ReasonConnection, relay.ReasonTimeout:
		return true
	}
	return errors.Is(err, ErrMoved)
}

// Pause waits, and reports whether ctx lasts longer.
func Pause(ctx context.Context, wait time.Duration) bool {
	select {
	case <-time.After(wait):
		return true
	case <-ctx.Done():
		return false
	}
}
