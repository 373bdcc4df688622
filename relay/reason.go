package relay

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// Reason says in a word why an attempt failed. There are few, because they are labels of metrics.
type Reason string

// Reasons of failed attempts.
const (
	ReasonTimeout     Reason = "timeout"     // no answer in time
	ReasonDNS         Reason = "dns"         // the name does not resolve
	ReasonConnection  Reason = "connection"  // refused, reset, no route
	ReasonTLS         Reason = "tls"         // certificate or handshake
	ReasonEgress      Reason = "egress"      // our own policy refuses the address
	ReasonAuth        Reason = "auth"        // 401, 403, 407; SASL, ACLs
	ReasonThrottled   Reason = "throttled"   // 429; quotas
	ReasonClientError Reason = "4xx"         // another 4xx
	ReasonServerError Reason = "5xx"         // 5xx
	ReasonStatus      Reason = "status"      // another status
	ReasonBroker      Reason = "broker"      // an error code of a Kafka broker
	ReasonTooLarge    Reason = "too_large"   // the far side takes no event of this size
	ReasonDisk        Reason = "disk"        // the file cannot be written
	ReasonEvent       Reason = "event"       // the event cannot be sent there: no URL, no topic
	ReasonQuarantine  Reason = "quarantined" // never meant to be sent
	ReasonOther       Reason = "other"

	// ReasonBacklog is why a delivery became a dead letter without an attempt: no label.
	ReasonBacklog Reason = "backlog"
)

// Reasons are all there are.
func Reasons() []Reason {
	return []Reason{ReasonTimeout, ReasonDNS, ReasonConnection, ReasonTLS, ReasonEgress, ReasonAuth, ReasonThrottled, ReasonClientError,
		ReasonServerError, ReasonStatus, ReasonBroker, ReasonTooLarge, ReasonDisk, ReasonEvent, ReasonQuarantine, ReasonOther}
}

type reasonError struct {
	err    error
	reason Reason
	status int // of HTTP; 0 = none
}

func (e *reasonError) Error() string { return e.err.Error() }
func (e *reasonError) Unwrap() error { return e.err }

// Because marks err with the reason, where its type does not tell. It changes neither the text nor the verdict.
func Because(reason Reason, err error) error { return &reasonError{err: err, reason: reason} }

// BecauseOfStatus is Because for the status that an HTTP service answered.
func BecauseOfStatus(status int, err error) error {
	return &reasonError{err, reasonOfStatus(status), status}
}

// StatusOf returns the status that err was marked with by BecauseOfStatus, 0 for none.
func StatusOf(err error) int {
	var said *reasonError
	if errors.As(err, &said) {
		return said.status
	}
	return 0
}

// reasonOfStatus is the reason of an HTTP status that is no success.
func reasonOfStatus(status int) Reason {
	switch {
	case status == 401, status == 403, status == 407:
		return ReasonAuth
	case status == 429:
		return ReasonThrottled
	case status == 408:
		return ReasonTimeout
	case status == 413:
		return ReasonTooLarge
	case status/100 == 4:
		return ReasonClientError
	case status/100 == 5:
		return ReasonServerError
	}
	return ReasonStatus
}

// ReasonOf classifies the error of a Send. What a sink said of it comes first, then what the types of the standard
// library say.
func ReasonOf(err error) Reason {
	var said *reasonError
	if errors.As(err, &said) {
		return said.reason
	}
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	var errno syscall.Errno
	var path *os.PathError
	switch {
	case errors.As(err, &dns):
		return ReasonDNS
	case isTLS(err):
		return ReasonTLS
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return ReasonTimeout
	case errors.As(err, &path), errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EIO):
		return ReasonDisk
	case errors.As(err, new(*net.OpError)), errors.As(err, &errno), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return ReasonConnection
	}
	return ReasonOther
}

func isTLS(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" { // an alert of the far side, whose type crypto/tls keeps to itself
		return true
	}
	return errors.As(err, new(*tls.CertificateVerificationError)) || errors.As(err, new(tls.RecordHeaderError)) ||
		errors.As(err, new(tls.AlertError)) || errors.As(err, new(x509.UnknownAuthorityError)) ||
		errors.As(err, new(x509.HostnameError)) || errors.As(err, new(x509.CertificateInvalidError))
}
