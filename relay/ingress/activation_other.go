//go:build !unix

package ingress

import (
	"errors"
	"net"
)

func inherited(int) (net.Listener, error) { return nil, errors.ErrUnsupported }
