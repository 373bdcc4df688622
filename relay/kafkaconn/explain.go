package kafkaconn

import (
	"errors"
	"fmt"

	"github.com/segmentio/kafka-go"

	"ncs-relay/relay"
)

// Explain adds to a broker's error what an operator can do about it, and its reason for metrics. Errors of the network and
// of TLS tell their reason by their types.
func Explain(err error) error {
	var code kafka.Error
	if !errors.As(err, &code) {
		return err
	}
	if hint := hints[code]; hint != "" {
		err = fmt.Errorf("%s: %w", hint, err)
	}
	return relay.Because(reasonOf(code), err)
}

// hints say in the operator's terms what brokers say in theirs.
var hints = map[kafka.Error]string{
	kafka.SASLAuthenticationFailed:   "the brokers do not accept the SASL credentials",
	kafka.UnsupportedSASLMechanism:   "the brokers do not offer the SASL mechanism at this port",
	kafka.IllegalSASLState:           "the brokers do not expect SASL at this port",
	kafka.TopicAuthorizationFailed:   "access rules of the cluster do not let this user do that with the topic",
	kafka.ClusterAuthorizationFailed: "access rules of the cluster do not let this user do that",
	kafka.GroupAuthorizationFailed:   "access rules of the cluster do not let this user read the consumer group",
}

func reasonOf(code kafka.Error) relay.Reason {
	switch code {
	case kafka.SASLAuthenticationFailed, kafka.UnsupportedSASLMechanism, kafka.IllegalSASLState,
		kafka.TopicAuthorizationFailed, kafka.ClusterAuthorizationFailed, kafka.GroupAuthorizationFailed:
		return relay.ReasonAuth
	case kafka.ThrottlingQuotaExceeded:
		return relay.ReasonThrottled
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge:
		return relay.ReasonTooLarge
	}
	return relay.ReasonBroker
}
