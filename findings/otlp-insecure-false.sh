#!/usr/bin/env bash
# OpenTelemetry for Go, otlptracehttp 1.47.0: OTEL_EXPORTER_OTLP_INSECURE=false makes the exporter speak TLS to an http:// endpoint.
#
# Guess before it was run: the scheme of the endpoint decides. The specification says so: the variable is for gRPC, where an
# endpoint has no scheme.
# Seen: with the variable set to false, which many platforms inject as the safe value, the first bytes that an http:// endpoint
# gets are those of a TLS handshake. No span arrives.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module finding

go 1.26.0

require (
	go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp v1.47.0
	go.opentelemetry.io/otel/sdk v1.47.0
)
MOD
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/trace"
)

func main() {
	for _, insecure := range []string{"", "true", "false"} {
		fmt.Printf("OTEL_EXPORTER_OTLP_INSECURE=%s: %s\n", insecure, firstByte(insecure))
	}
}

// firstByte says what an http:// endpoint gets first.
func firstByte(insecure string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer listener.Close()
	os.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+listener.Addr().String())
	os.Setenv("OTEL_EXPORTER_OTLP_INSECURE", insecure)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithRetry(otlptracehttp.RetryConfig{}))
	if err != nil {
		panic(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		provider := trace.NewTracerProvider(trace.WithSyncer(exporter))
		_, span := provider.Tracer("finding").Start(ctx, "span")
		span.End()
	}()
	conn, err := listener.Accept()
	if err != nil {
		panic(err)
	}
	var first [1]byte
	if _, err := conn.Read(first[:]); err != nil {
		panic(err)
	}
	conn.Close()
	cancel()
	<-ended
	switch first[0] {
	case 'P':
		return "POST in plain text"
	case 0x16:
		return "a TLS handshake"
	}
	return fmt.Sprintf("%q", first)
}
GO
go mod tidy >tidy.log 2>&1 || { cat tidy.log >&2; exit 1; }
seen=$(go run . 2>/dev/null)
printf '%s\n' "$seen"
[ "$seen" = "OTEL_EXPORTER_OTLP_INSECURE=: POST in plain text
OTEL_EXPORTER_OTLP_INSECURE=true: POST in plain text
OTEL_EXPORTER_OTLP_INSECURE=false: a TLS handshake" ] || { echo "the exporter behaves otherwise now" >&2; exit 1; }
