package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReasonsOfFailedAttempts(t *testing.T) {
	t.Parallel()
	for want, err := range map[Reason]error{
		ReasonTimeout:    context.DeadlineExceeded,
		ReasonDNS:        &net.DNSError{IsTimeout: true},
		ReasonConnection: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		ReasonDisk:       &os.PathError{Op: "write", Err: syscall.ENOSPC},
		ReasonAuth:       BecauseOfStatus(401, errors.New("no")),
		ReasonOther:      errors.New("odd"),
	} {
		require.Equal(t, want, ReasonOf(fmt.Errorf("wrapped: %w", err)))
		require.Equal(t, want, ReasonOf(Permanent(err)))
	}
	for status := range 1000 {
		require.Contains(t, Reasons(), reasonOfStatus(status))
	}
}
