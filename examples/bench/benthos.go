package main

import (
	"context"
	"fmt"
	"net"

	_ "github.com/redpanda-data/benthos/v4/public/components/io"
	_ "github.com/redpanda-data/benthos/v4/public/components/pure"
	"github.com/redpanda-data/benthos/v4/public/service"
	"github.com/twmb/franz-go/pkg/kgo"

	"ncs-relay/relay/porttest"
)

// pipeline is what a team would write instead of the relay: verify, drop copies, route by type, into Kafka; answered when the
// record is there. Nothing is kept on disk. A copy of a call that failed is lost by it, which the relay is not (see the
// reference of the dedupe processor), so it does a little less.
const pipeline = `
http: {enabled: false}
logger: {level: ERROR}
input:
  http_server:
    address: %q
    path: /ncs
    allowed_verbs: [POST]
    timeout: 8s
pipeline:
  processors:
    - mapping: |
        root = if content().hash("hmac_sha256", %q).encode("hex") != metadata("Agora-Signature-V2").or("") {
          throw("invalid signature")
        }
    - mapping: |
        let event = content().parse_json()
        meta key = $event.payload.sid + "/" + $event.payload.sequence.string() + "/" + $event.eventType.string()
        meta entity = $event.payload.sid
        meta type = $event.eventType.string()
    - dedupe: {cache: known, key: '${! metadata("key") }'}
output:
  switch:
    cases:
      - check: '["30", "31", "32", "33", "34"].contains(metadata("type"))'
        output: {franz: {brokers: %q, topic: %q}}
      - output: {drop: {}}
cache_resources:
  - label: known
    lru: {cap: 1000000}
`

// benthos runs the pipeline, by its library, with args: brokers and topic.
func benthos(ctx context.Context, args []string) error {
	spec := service.NewConfigSpec().Field(service.NewStringField("brokers")).Field(service.NewStringField("topic"))
	if err := service.RegisterOutput("franz", spec, newFranz); err != nil {
		return err
	}
	address := porttest.Free()
	builder := service.NewStreamBuilder()
	if err := builder.SetYAML(fmt.Sprintf(pipeline, address, secret, args[0], args[1])); err != nil {
		return err
	}
	stream, err := builder.Build()
	if err != nil {
		return err
	}
	go func() {
		for ctx.Err() == nil { // until it listens
			if conn, err := net.Dial("tcp", address); err == nil {
				conn.Close()
				_ = ready(address)
				return
			}
		}
	}()
	return stream.Run(ctx)
}

// franz writes to Kafka as Redpanda Connect does, whose own output is not in the free library: with franz-go, idempotent, all
// replicas in sync.
type franz struct {
	options []kgo.Opt
	client  *kgo.Client
}

func newFranz(conf *service.ParsedConfig, _ *service.Resources) (service.Output, int, error) {
	brokers, err := conf.FieldString("brokers")
	if err != nil {
		return nil, 0, err
	}
	topic, err := conf.FieldString("topic")
	if err != nil {
		return nil, 0, err
	}
	return &franz{options: []kgo.Opt{kgo.SeedBrokers(brokers), kgo.DefaultProduceTopic(topic)}}, 1024, nil
}

func (f *franz) Connect(ctx context.Context) (err error) {
	if f.client, err = kgo.NewClient(f.options...); err != nil {
		return err
	}
	return f.client.Ping(ctx)
}

func (f *franz) Write(ctx context.Context, m *service.Message) error {
	value, err := m.AsBytes()
	if err != nil {
		return err
	}
	record := &kgo.Record{Value: value}
	for _, name := range []string{"entity", "key", "type"} {
		text, _ := m.MetaGet(name)
		if name == "entity" {
			record.Key = []byte(text)
			continue
		}
		record.Headers = append(record.Headers, kgo.RecordHeader{Key: name, Value: []byte(text)})
	}
	return f.client.ProduceSync(ctx, record).FirstErr()
}

func (f *franz) Close(context.Context) error {
	f.client.Close()
	return nil
}
