package kafkasink

import (
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAConnectionNeverWaitsForever(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		conn := &guardedConn{Conn: near, dialer: newDialer(nil)}
		defer conn.Close()

		require.NoError(t, conn.SetDeadline(time.Time{}), "as kafka-go does before it authenticates")
		_, err := conn.Read(make([]byte, 1))

		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	d := newDialer(nil)
	dial := func() (net.Conn, error) { return d.dial(t.Context(), "tcp", listener.Addr().String()) }
	var last net.Conn
	for range maxConns {
		last, err = dial()
		require.NoError(t, err)
	}

	_, err = dial()
	require.ErrorContains(t, err, "open already")

	require.NoError(t, last.Close())
	_, err = dial()
	require.NoError(t, err, "a closed connection makes room")

	d.closeAll()
	_, err = dial()
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestFailedDialsMakeRoom(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	d := newDialer(nil)
	for range maxConns + 1 {
		_, err := d.dial(t.Context(), "tcp", address)
		require.NotContains(t, err.Error(), "open already")
	}
}
