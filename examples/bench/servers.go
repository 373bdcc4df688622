package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"ncs-relay/relay/ncs"
)

// roles are what a child of this program can be.
var roles = map[string]func(ctx context.Context, args []string) error{
	"bare":     bare,
	"receiver": receiver,
	"benthos":  benthos,
}

// bare is the least that a server can do with a notification: it reads it and verifies the signature.
func bare(ctx context.Context, _ []string) error {
	verifier, err := ncs.NewVerifier([]string{secret}, false)
	if err != nil {
		return err
	}
	return serve(ctx, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if _, ok := verifier.Verify(body, nil, r.Header.Values(ncs.HeaderV2)); !ok || err != nil {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"status":"accepted"}`)
	}))
}

// receiver takes what an HTTP sink sends, and says at /count how much that was.
func receiver(ctx context.Context, _ []string) error {
	var count atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, count.Load()) })
	mux.HandleFunc("POST /", func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		count.Add(1)
	})
	return serve(ctx, mux)
}

func serve(ctx context.Context, handler http.Handler) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := ready(listener.Addr().String()); err != nil {
		return err
	}
	return server.Serve(listener)
}

// runRole is the main function of a child.
func runRole(ctx context.Context, args []string) int {
	if err := roles[args[0]](ctx, args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
