package ingress

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"ncs-relay/relay/telemetry"
)

// Why a connection or call ended before a source saw it.
const (
	refusedHTTP        = "http_to_tls"
	refusedTLS         = "tls_to_http"
	refusedProxy       = "proxy_protocol"
	refusedCertificate = "certificate"
	refusedHandshake   = "handshake"
	refusedHeaders     = "headers_too_large"
	refusedMalformed   = "malformed"
	refusedIncomplete  = "incomplete"
	refusedDescriptors = "descriptors"
	refusedStarting    = "starting"
)

// refusalHints are all reasons, each with what it means or what to do.
var refusalHints = map[string]string{
	refusedHTTP:        "the caller speaks plain HTTP and this port TLS: let it use https, or leave tls out where a proxy ends TLS",
	refusedTLS:         "the caller speaks TLS and this port plain HTTP: configure tls, or let what stands in front speak http",
	refusedProxy:       "a PROXY protocol header came, which the relay does not read: switch it off in the load balancer",
	refusedCertificate: "the caller does not accept the certificate: name, date, intermediate certificates",
	refusedHandshake:   "no TLS connection came about; strangers that look for open ports do this too",
	refusedHeaders:     "the headers have more than 32 KiB: look at what the proxy in front adds",
	refusedMalformed:   "this was no HTTP/1.1 request that can be answered",
	refusedIncomplete:  "the headers did not arrive within 5 s, or the caller hung up before",
	refusedDescriptors: "no connection can be accepted: raise the limit of open files (ulimit -n, LimitNOFILE), or lower limits.connections",
	refusedStarting:    "answered 503, because nothing can be stored yet; /readyz of the admin address says why",
}

// refusals counts what ends before a handler sees it, which net/http does in silence, and tells of it once a minute for each
// reason. A nil one does neither.
type refusals struct {
	log    *slog.Logger
	series map[string]*telemetry.CounterSeries
	said   map[string]*telemetry.Repetition
}

func newRefusals(log *slog.Logger, m *telemetry.Metrics) *refusals {
	r := &refusals{log: log, series: make(map[string]*telemetry.CounterSeries), said: make(map[string]*telemetry.Repetition)}
	var counter *telemetry.Counter
	if m != nil {
		counter = m.Counter("ingress_refusals_total", "Connections and calls that ended before a source saw them, by reason.")
	}
	for reason := range refusalHints {
		r.said[reason] = new(telemetry.Repetition)
		if counter != nil {
			r.series[reason] = counter.With(attribute.String("reason", reason))
		}
	}
	return r
}

// note is told of one; remote and err may be absent.
func (r *refusals) note(reason string, remote net.Addr, err error) {
	if r == nil {
		return
	}
	if s := r.series[reason]; s != nil {
		s.Add(1)
	}
	suppressed, ok := r.said[reason].Allow(time.Now())
	if !ok {
		return
	}
	attrs := []any{"reason", reason, "hint", refusalHints[reason], "suppressed", suppressed}
	if remote != nil {
		attrs = append(attrs, "remote", remote.String())
	}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	r.log.Warn("connection or call refused before a source saw it", attrs...)
}

// byBeginning recognises what is no HTTP by its first bytes; "" if they may be HTTP.
func byBeginning(first []byte) string {
	switch begins := string(first); {
	case strings.HasPrefix(begins, "PROXY"), strings.HasPrefix(begins, "\r\n\r\n\x00"):
		return refusedProxy
	case strings.HasPrefix(begins, "\x16\x03"):
		return refusedTLS
	}
	return ""
}

// byAnswer is the reason for an answer that net/http made by itself, "" where it is none of refusal.
func byAnswer(head, first []byte) string {
	_, status, _ := strings.Cut(string(head[:min(len(head), 12)]), " ")
	switch {
	case status < "4":
		return ""
	case byBeginning(first) != "":
		return byBeginning(first)
	case status == "431":
		return refusedHeaders
	}
	return refusedMalformed
}

// byHandshake is the reason why a TLS handshake failed; "" for a caller that said nothing, as probes of a port do.
func byHandshake(c *tls.Conn, err error) string {
	var header tls.RecordHeaderError
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &header):
		if reason := byBeginning(header.RecordHeader[:]); reason != "" && reason != refusedTLS {
			return reason
		}
		switch string(header.RecordHeader[:]) {
		case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
			return refusedHTTP
		}
	case errors.As(err, &op) && op.Op == "remote error" && strings.Contains(op.Err.Error(), "certificate"):
		return refusedCertificate
	case c.ConnectionState().Version != 0: // it did say something
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.As(err, &timeout) && timeout.Timeout():
		return ""
	}
	return refusedHandshake
}
