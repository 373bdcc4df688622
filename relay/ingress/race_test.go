//go:build race

package ingress

// The race detector makes pools forget what they hold now and then.
const underRace = true
