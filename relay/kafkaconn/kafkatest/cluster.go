// Package kafkatest runs a real Apache Kafka for tests, in KRaft mode on free ports of 127.0.0.1, and reads and writes it
// with Apache's own tools, so that a client under test is not checked by itself.
//
// It promises that the brokers and their data are gone when the test ends. Kafka comes from Maven Central, once, into the
// user's cache; without Java or Maven the test is skipped, and says so. It is for tests only.
package kafkatest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ncs-relay/relay/porttest"
)

const (
	startTimeout = 90 * time.Second // a broker is up in 4 s on an idle machine
	toolTimeout  = 120 * time.Second
	startTries   = 3 // a free port can be taken before Kafka listens on it
)

// Options of a cluster.
type Options struct {
	Version   string            // default Version
	Brokers   int               // default 1
	Config    map[string]string // of every broker, over the defaults
	Listeners []Listener        // besides the plain one
	Format    []string          // arguments for formatting the brokers' storage, such as --add-scram
}

// Listener is one more port of every broker.
type Listener struct {
	Name     string // in capitals; what Kafka calls listener.name.<name> in lower case
	Protocol string // PLAINTEXT, SSL, SASL_SSL or SASL_PLAINTEXT

	Advertised string // the address that clients are told, if not the listener's own; for a cluster of one broker
	Proxied    bool   // clients are told of a proxy, which Cut, HoldWrites and HoldAnswers are about
}

// Cluster is a running Kafka cluster. Its methods end the test on failure.
type Cluster struct {
	Options
	home    string
	dir     string
	brokers []*broker
	proxies map[string]*proxy // by listener
	admin   *kgo.Client
}

type broker struct {
	id                  int
	address, controller string
	others              []string // addresses of Options.Listeners
	told                []string // those that clients are told
	dir                 string
	ended               <-chan error
	cmd                 *exec.Cmd
}

// Start starts a cluster that lives until t ends. It skips t where a broker cannot be had, or fails it where
// NCS_RELAY_REQUIRE_KAFKA is 1.
func Start(t testing.TB, opts Options) *Cluster {
	t.Helper()
	require(t)
	if opts.Version == "" {
		opts.Version = Version
	}
	home, err := install(t.Context(), opts.Version)
	if err != nil {
		unavailable(t, err.Error())
	}
	for try := 1; ; try++ {
		c := &Cluster{Options: opts, home: home, dir: t.TempDir()}
		err := c.start(t.Context(), max(opts.Brokers, 1))
		if err == nil {
			t.Cleanup(func() { c.stop(t) })
			t.Logf("real Kafka %s at %s", opts.Version, strings.Join(c.Addresses(), ","))
			return c
		}
		logs := c.logs()
		c.kill()
		if try == startTries || !strings.Contains(logs, "Address already in use") {
			t.Fatalf("start Kafka: %v\n%s", err, logs)
		}
	}
}

// Addresses are those to connect to without encryption and authentication.
func (c *Cluster) Addresses() []string {
	addresses := make([]string, len(c.brokers))
	for i, b := range c.brokers {
		addresses[i] = b.address
	}
	return addresses
}

// AddressesOf are the addresses of the listener called name, or of its proxy.
func (c *Cluster) AddressesOf(name string) []string {
	at := slices.IndexFunc(c.Listeners, func(l Listener) bool { return l.Name == name })
	addresses := make([]string, len(c.brokers))
	for i, b := range c.brokers {
		if addresses[i] = b.others[at]; c.Listeners[at].Proxied {
			addresses[i] = b.told[at]
		}
	}
	return addresses
}

func (c *Cluster) start(ctx context.Context, count int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := os.WriteFile(filepath.Join(c.dir, "log4j2.properties"), log4j, 0o644); err != nil {
		return err
	}
	if err := c.plan(count); err != nil {
		return err
	}
	for _, b := range c.brokers {
		if err := c.format(ctx, b); err != nil {
			return err
		}
		if err := c.run(b); err != nil {
			return err
		}
	}
	admin, err := kgo.NewClient(kgo.SeedBrokers(c.Addresses()...))
	if err != nil {
		return err
	}
	c.admin = admin
	return c.wait(ctx)
}

// plan gives each broker its addresses.
func (c *Cluster) plan(count int) error {
	each := 2 + len(c.Listeners)
	addresses := make([]string, each*count)
	for i := range addresses {
		addresses[i] = porttest.Free()
	}
	for i := range count {
		c.brokers = append(c.brokers, &broker{
			id:         i + 1,
			address:    addresses[each*i],
			controller: addresses[each*i+1],
			others:     addresses[each*i+2 : each*(i+1)],
			dir:        filepath.Join(c.dir, "broker-"+strconv.Itoa(i+1)),
		})
	}
	return c.tell()
}

// tell decides what addresses clients are told.
func (c *Cluster) tell() (err error) {
	c.proxies = make(map[string]*proxy)
	for i, l := range c.Listeners {
		if l.Proxied {
			c.proxies[l.Name] = newProxy()
		}
		for _, b := range c.brokers {
			address := cmp.Or(l.Advertised, b.others[i])
			if l.Proxied {
				if address, err = c.proxies[l.Name].line(b.id, b.others[i]); err != nil {
					return err
				}
			}
			b.told = append(b.told, address)
		}
	}
	return nil
}

// properties are the broker's server.properties: every broker is also a controller.
func (c *Cluster) properties(b *broker) string {
	voters := make([]string, len(c.brokers))
	for i, voter := range c.brokers {
		voters[i] = fmt.Sprintf("%d@%s", voter.id, voter.controller)
	}
	replicas := strconv.Itoa(min(len(c.brokers), 3))
	clients, protocols := "PLAINTEXT://"+b.address, "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"
	advertised := clients
	for i, l := range c.Listeners {
		clients += "," + l.Name + "://" + b.others[i]
		advertised += "," + l.Name + "://" + b.told[i]
		protocols += "," + l.Name + ":" + l.Protocol
	}
	properties := map[string]string{
		"process.roles":                            "broker,controller",
		"node.id":                                  strconv.Itoa(b.id),
		"controller.quorum.voters":                 strings.Join(voters, ","),
		"listeners":                                clients + ",CONTROLLER://" + b.controller,
		"advertised.listeners":                     advertised,
		"listener.security.protocol.map":           protocols,
		"controller.listener.names":                "CONTROLLER",
		"log.dirs":                                 filepath.Join(b.dir, "data"),
		"auto.create.topics.enable":                "false",
		"default.replication.factor":               replicas,
		"offsets.topic.num.partitions":             "1",
		"offsets.topic.replication.factor":         replicas,
		"transaction.state.log.num.partitions":     "1",
		"transaction.state.log.replication.factor": replicas,
		"transaction.state.log.min.isr":            "1",
		"group.initial.rebalance.delay.ms":         "0",
		"log.retention.ms":                         "-1", // records of tests may have any time
		"num.network.threads":                      "2",
		"num.io.threads":                           "2",
		"log.cleaner.dedupe.buffer.size":           "2097152", // 128 MiB of the heap otherwise
	}
	maps.Copy(properties, c.Config)
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&text, "%s=%s\n", key, properties[key])
	}
	return text.String()
}

const clusterID = "bmNzLXJlbGF5LXRlc3QtMQ" // 16 bytes in base64, as Kafka wants it

func (c *Cluster) format(ctx context.Context, b *broker) error {
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return err
	}
	properties := filepath.Join(b.dir, "server.properties")
	if err := os.WriteFile(properties, []byte(c.properties(b)), 0o644); err != nil {
		return err
	}
	format := c.java(ctx, "128m", "kafka.tools.StorageTool", append([]string{"format", "-t", clusterID, "-c", properties}, c.Format...)...)
	if output, err := format.CombinedOutput(); err != nil {
		return fmt.Errorf("kafka.tools.StorageTool format: %w\n%s", err, output)
	}
	return nil
}

func (c *Cluster) run(b *broker) error {
	log, err := os.OpenFile(b.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	b.cmd = c.java(context.Background(), "256m", "kafka.Kafka", filepath.Join(b.dir, "server.properties"))
	b.cmd.Stdout, b.cmd.Stderr = log, log
	b.ended, err = start(b.cmd)
	return err
}

func (b *broker) logFile() string { return filepath.Join(b.dir, "broker.log") }

// java makes the command that runs a class of Kafka. The settings are for a short life.
func (c *Cluster) java(ctx context.Context, heap, class string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "java", append([]string{
		"-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData",
		"-Djava.awt.headless=true", "-Dfile.encoding=UTF-8",
		"-Dlog4j2.configurationFile=" + filepath.Join(c.dir, "log4j2.properties"),
		"-cp", filepath.Join(c.home, "*"), class,
	}, args...)...)
}

// wait returns when every broker has joined the cluster.
func (c *Cluster) wait(ctx context.Context) error {
	for {
		joined, err := c.joined(ctx)
		if joined == len(c.brokers) {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d brokers joined: %w", joined, len(c.brokers), errors.Join(ctx.Err(), err))
		case err := <-c.brokers[0].ended:
			return fmt.Errorf("broker ended: %w", err)
		}
	}
}

func (c *Cluster) joined(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request := kmsg.NewPtrMetadataRequest()
	request.Topics = []kmsg.MetadataRequestTopic{}
	response, err := request.RequestWith(ctx, c.admin)
	if err != nil {
		return 0, err
	}
	return len(response.Brokers), nil
}

func (c *Cluster) stop(t testing.TB) {
	if t.Failed() {
		t.Logf("log of Kafka:\n%s", c.logs())
	}
	c.kill()
}

func (c *Cluster) kill() {
	if c.admin != nil {
		c.admin.Close()
	}
	for _, b := range c.brokers {
		b.kill()
	}
	for _, p := range c.proxies {
		p.close()
	}
}

func (b *broker) kill() {
	if b.ended == nil {
		return // never started
	}
	_ = b.cmd.Process.Kill() // an error says that it has ended already
	<-b.ended
}

func (c *Cluster) logs() string {
	var all strings.Builder
	for _, b := range c.brokers {
		log, err := os.ReadFile(b.logFile())
		if err != nil {
			continue // not started yet
		}
		fmt.Fprintf(&all, "broker %d at %s:\n%s", b.id, b.address, log)
	}
	return all.String()
}
