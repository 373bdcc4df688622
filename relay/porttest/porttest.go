// Package porttest finds addresses for the processes that tests and demos start.
package porttest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

var given sync.Map // addresses that were returned

// Free returns a loopback address at which nobody listens and which it has not returned before. Its port is below those that systems
// hand out by themselves, so that no connection takes it while a process that listens there is started, or started again. It panics
// where it finds none, and may be called concurrently.
func Free() (address string) {
	var err error
	for range 100 {
		address = fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if _, already := given.LoadOrStore(address, true); already {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
	panic(fmt.Sprint("no free port: ", err))
}
