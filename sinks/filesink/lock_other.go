//go:build !unix

package filesink

// lock does nothing: serve does not run here, and a command that writes one event needs nobody kept out.
func lock(file) error { return nil }
