//go:build !linux

package kafkatest

import (
	"errors"
	"os"
	"os/exec"
)

// lockFile does nothing here: run the packages that need a broker one after the other the first time.
func lockFile(string) (unlock func() error, err error) { return func() error { return nil }, nil }

// start starts cmd and reports its end on the channel.
func start(cmd *exec.Cmd) (ended <-chan error, err error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	end := make(chan error, 1)
	go func() {
		end <- cmd.Wait()
		close(end)
	}()
	return end, nil
}

var errSignals = errors.New("only on Linux")

func terminate(*os.Process) error { return errSignals }
func pause(*os.Process) error     { return errSignals }
func resume(*os.Process) error    { return errSignals }
