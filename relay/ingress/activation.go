package ingress

import (
	"fmt"
	"net"
	"os"
	"strconv"
)

// activated returns the socket at address's port that a service manager opened for this process, nil if there is none.
// The manager keeps it open when the process ends, so calls wait for the next process instead of being refused. It may be
// asked for more than once.
//
// The protocol is that of systemd's sd_listen_fds(3): LISTEN_PID is the process meant, LISTEN_FDS the number of
// descriptors, which begin at 3.
func activated(getenv func(string) string, address string) (net.Listener, error) {
	if pid, err := strconv.Atoi(getenv("LISTEN_PID")); err != nil || pid != os.Getpid() {
		return nil, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil {
		return nil, fmt.Errorf("LISTEN_FDS: %w", err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	const first = 3
	for fd := first; fd < first+n; fd++ {
		l, err := inherited(fd)
		if err != nil {
			return nil, fmt.Errorf("socket %d of LISTEN_FDS: %w", fd, err)
		}
		if a, ok := l.Addr().(*net.TCPAddr); ok && strconv.Itoa(a.Port) == port {
			return l, nil
		}
		l.Close() // a copy; the socket may be for somebody else
	}
	return nil, nil
}
