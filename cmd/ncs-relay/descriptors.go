package main

import (
	"log/slog"

	"ncs-relay/config"
)

// otherDescriptors are for the admin address, the journal, file sinks, watches and connections to brokers.
const otherDescriptors = 512

// warnOfDescriptors says at start what would else be found out under load: connections that cannot be accepted.
func warnOfDescriptors(cfg *config.Config, log *slog.Logger) {
	limit, _, known := descriptorLimit()
	if !known {
		return
	}
	need := uint64(cfg.Limits.Connections) + otherDescriptors
	for _, s := range cfg.Sinks {
		need += uint64(s.Kind.Traits("", "", nil).Concurrency)
	}
	if need > limit {
		log.Warn("limits.connections does not fit the limit of open files: connections could not be accepted before it is reached",
			"limit", limit, "need", need, "hint", "raise it (ulimit -n, LimitNOFILE, --ulimit nofile), or lower limits.connections")
	}
}
