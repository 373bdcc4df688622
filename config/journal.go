package config

import (
	"fmt"
	"net"
	"os"
	"time"

	"ncs-relay/relay/journal"
	"ncs-relay/relay/journal/kafkajournal/topics"
	"ncs-relay/relay/problem"
	"ncs-relay/sinks"
)

// JournalConfig says where the journal is, on this machine's disk or on a Kafka cluster, and bounds it.
type JournalConfig struct {
	Kafka     *topics.Config `yaml:"kafka"`          // the journal is on Kafka, for several replicas; without it, in data_dir
	Retention time.Duration  `yaml:"retention"`      // how far back a replay can reach
	MaxSize   int64          `yaml:"max_size,bytes"` // of a journal on disk
	MinFree   int64          `yaml:"min_free,bytes"` // of its disk; 0: the smaller of 1 GiB and 5 % of the volume
}

// SetDefaults fills what the configuration may leave out.
func (c *JournalConfig) SetDefaults() {
	var disk journal.Config
	disk.SetDefaults()
	c.Retention, c.MaxSize, c.MinFree = disk.Retention, disk.MaxSize, disk.MinFree
}

// Disk bounds a journal on disk.
func (c *JournalConfig) Disk() journal.Config {
	return journal.Config{Retention: c.Retention, MaxSize: c.MaxSize, MinFree: c.MinFree}
}

// Unused reports whether a setting has no meaning.
func (c *JournalConfig) Unused(key string) bool {
	return c.Kafka != nil && (key == "max_size" || key == "min_free")
}

// Check reports what is wrong with c.
func (c *JournalConfig) Check(report problem.Report) {
	disk := c.Disk()
	disk.Check(report)
}

// Meta are the constants of a journal on Kafka, as this configuration has them.
func (c *Config) Meta() topics.Meta {
	return topics.MetaOf(c.Journal.Kafka.Cluster, c.Dedup.OnConflict, c.Dedup.MaxKeys, c.Dedup.Window)
}

// Topics are what the topics of a journal on Kafka must be.
func (c *Config) Topics() topics.Options {
	var largest int64
	for _, s := range c.Sources {
		largest = max(largest, s.MaxBody)
	}
	return c.Journal.Kafka.Options(c.Journal.Retention, largest)
}

// ReplicaName is the name of this process among those with the same journal: Replica, or the name of the machine.
func (c *Config) ReplicaName() string {
	if c.Replica != "" {
		return c.Replica
	}
	name, _ := os.Hostname() // where there is none, it is said that "" is no name
	return name
}

// nameReplica puts the name of this process where paths of sinks ask for it.
func (d *decoder) nameReplica(c *Config) {
	used, name := false, c.ReplicaName()
	if c.Journal.Kafka != nil && !topics.ValidName(name) {
		d.problem(Error, "replica", "%q cannot be the name of a replica", topics.NameRule, name)
	}
	for i, s := range c.Sinks {
		kind, ok := s.Kind.(sinks.Local)
		if !ok {
			continue
		}
		setting, template := kind.ForReplica(name)
		path := fmt.Sprintf("sinks[%d].%s.%s", i, s.Kind.Key(), setting)
		named := template != ""
		used = used || named
		if _, variables := d.written[path]; named && !variables {
			d.written[path] = template
		}
		if !named && c.Journal.Kafka != nil {
			d.problem(Error, path, "replicas of a journal on Kafka cannot share a file", `write {replica} in it, such as ./archive/{replica}.jsonl`)
		}
	}
	if _, given := d.at["replica"]; given && !used && c.Journal.Kafka == nil {
		d.problem(Warning, "replica", "has no effect without journal.kafka, or {replica} in the path of a file sink", "")
	}
}

// checkJournal checks what goes with a journal on Kafka, and what does not.
func (d *decoder) checkJournal(c *Config) {
	_, advertised := d.at["admin.advertise"]
	if c.Journal.Kafka == nil {
		if advertised {
			d.problem(Warning, "admin.advertise", "has no effect without journal.kafka", "")
		}
		return
	}
	if _, given := d.at["data_dir"]; !given {
		c.DataDir = "" // nothing need be kept
	}
	for _, path := range []string{"journal.max_size", "journal.min_free"} {
		if _, given := d.at[path]; given {
			d.problem(Error, path, "is for a journal on disk, and this one is on Kafka", "remove it; topics are bounded by journal.retention")
		}
	}
	const least = 3 * time.Hour
	if c.Journal.Retention < least {
		d.problem(Warning, "journal.retention", "%v is short: what is owed an hour before its end becomes a dead letter", "use 3d or more", c.Journal.Retention)
	}
	d.checkReached(c.Admin.Listen, advertised)
}

// checkReached warns where other replicas cannot call this one. Those on the same machine can by any of these addresses.
func (d *decoder) checkReached(listen string, advertised bool) {
	host, port, err := net.SplitHostPort(listen)
	hint := fmt.Sprintf(`advertise: "${POD_IP}:%s"`, port)
	switch {
	case err != nil || advertised:
		return
	case isLoopback(host):
		hint = fmt.Sprintf(`listen: ":%s", %s`, port, hint)
	case !isEvery(host):
		return
	}
	d.problem(Warning, "admin.advertise", "is not given, and only replicas on the same machine can reach this one at %q: what is asked of others is without its shards, and says so",
		hint+"; nothing, if all run on one machine", listen)
}
