#!/usr/bin/env bash
# Go 1.26, Linux: a program in a unit with ProcSubset=pid listens with a queue of 128 connections, not of net.core.somaxconn.
#
# Guess before it was run: hiding what is not about processes in /proc costs a network service nothing;
# `systemd-analyze security` proposes it for every unit. The length of the queue is asked of the kernel.
# Seen: net.Listen reads /proc/sys/net/core/somaxconn. Where that is hidden it uses 128 and says nothing, so a burst of
# connections is dropped by the kernel that waited before, and comes a second later or not at all.
#
# Mounts a /proc of its own as systemd does. Needs root and ss (iproute2).
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
cat >go.mod <<'MOD'
module finding

go 1.26.0
MOD
cat >main.go <<'GO'
package main

import (
	"net"
	"os"
	"os/exec"
	"strings"
)

func main() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	out, err := exec.Command("ss", "-H", "-l", "-t", "-n", "sport", "=", ":"+port).CombinedOutput()
	if err != nil {
		panic(string(out))
	}
	os.Stdout.WriteString(strings.Fields(string(out))[2] + "\n") // of a listening socket Send-Q is the length of the queue
}
GO
CGO_ENABLED=0 go build -o listen .
echo "somaxconn is $(cat /proc/sys/net/core/somaxconn)"
whole=$(./listen)
subset=$(unshare --mount sh -c 'mount -t proc -o subset=pid proc /proc && exec ./listen')
echo "queue with the whole of /proc: $whole; with subset=pid: $subset"
[ "$whole" = "$(cat /proc/sys/net/core/somaxconn)" ] && [ "$whole" != 128 ] && [ "$subset" = 128 ] ||
	{ echo "Go behaves otherwise now, or somaxconn is 128 here" >&2; exit 1; }
