package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ncs-relay/config"
	"ncs-relay/relay/ncs"
	"ncs-relay/relay/route"
	"ncs-relay/sinks"
)

func asyncAPICommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "asyncapi",
		Short: "Print an AsyncAPI 3 document of what a configuration sends: topics, URLs, messages, headers, owners",
		Long: `asyncapi prints an AsyncAPI 3.0 document, as JSON, of what serve would send with a configuration: a channel for each topic, HTTP
service and file, the event types that its rules can send there with the schemas of their bodies, headers and owners. It shows no
secret: of an HTTP service's URL only the host, as logs do.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, report := config.Load(file, os.LookupEnv)
			if report.Err() != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), report)
				return errReported
			}
			return printJSON(cmd.OutOrStdout(), asyncAPIOf(cfg))
		},
	}
	addConfigFlag(cmd, &file)
	return cmd
}

type object = map[string]any

// asyncAPI is a document under construction.
type asyncAPI struct{ servers, channels, operations, messages, schemas object }

func asyncAPIOf(cfg *config.Config) object {
	d := asyncAPI{object{}, object{}, object{}, object{}, object{}}
	for i := range cfg.Sinks {
		d.addSink(&cfg.Sinks[i], cfg.Router.Reach(cfg.Sinks[i].Name))
	}
	return object{
		"asyncapi":           "3.0.0",
		"info":               object{"title": "Events of Agora's notification service, as ncs-relay sends them", "version": buildVersion()},
		"defaultContentType": "application/json",
		"servers":            d.servers,
		"channels":           d.channels,
		"operations":         d.operations,
		"components":         object{"messages": d.messages, "schemas": d.schemas},
	}
}

// addSink adds the channels of a sink: one, or one for each of its topics.
func (d *asyncAPI) addSink(c *sinks.Config, reach route.Reach) {
	infos := slices.Clone(reach.Known)
	if len(infos)+len(reach.Unknown) == 0 {
		return // no rule sends anything there
	}
	servers := d.addServers(c)
	d.addHeaders(c)
	switch {
	case c.Kafka != nil:
		for _, topic := range c.Topics(reach) {
			known := slices.DeleteFunc(slices.Clone(infos), func(i ncs.Info) bool { return c.Kafka.Topics([]ncs.Info{i})[0] != topic })
			unknown := slices.Contains(c.Topics(route.Reach{Unknown: reach.Unknown}), topic)
			d.addChannel(c, c.Name+":"+topic, topic, servers, known, unknown)
		}
	case c.HTTP != nil:
		url, host := c.HTTP.ShownURL()
		_, address, _ := strings.Cut(url, host)
		d.addChannel(c, c.Name, address, servers, infos, len(reach.Unknown) > 0)
	default:
		d.addChannel(c, c.Name, c.File.Path, servers, infos, len(reach.Unknown) > 0)
	}
}

func (d *asyncAPI) addServers(c *sinks.Config) []any {
	var refs []any
	add := func(name, protocol, host string) {
		d.servers[name] = object{"host": host, "protocol": protocol}
		refs = append(refs, object{"$ref": "#/servers/" + name})
	}
	switch {
	case c.Kafka != nil:
		protocol := "kafka"
		if c.Kafka.TLS != nil {
			protocol = "kafka-secure"
		}
		for i, broker := range strings.Split(strings.Join(c.Kafka.Brokers, ","), ",") {
			add(fmt.Sprintf("%s-%d", c.Name, i+1), protocol, strings.TrimSpace(broker))
		}
	case c.HTTP != nil:
		url, host := c.HTTP.ShownURL()
		protocol, _, _ := strings.Cut(url, "://")
		add(c.Name, protocol, host)
	default:
		add(c.Name, "file", "localhost")
	}
	return refs
}

func (d *asyncAPI) addHeaders(c *sinks.Config) {
	properties, required := object{}, []string{}
	for _, h := range c.Headers() {
		properties[h.Name] = object{"type": "string", "description": h.Text}
		if h.Always {
			required = append(required, h.Name)
		}
	}
	if len(properties) > 0 {
		d.schemas[headersOf(c)] = object{"type": "object", "properties": properties, "required": required}
	}
}

func headersOf(c *sinks.Config) string { return c.Name + ".headers" }

func (d *asyncAPI) addChannel(c *sinks.Config, name, address string, servers []any, known []ncs.Info, unknown bool) {
	messages := object{}
	for _, i := range known {
		event := i.Product + "." + i.Event
		body := i.Schema()
		body.ID = "" // references in the document are from its root
		d.schemas[event] = body
		x := i.Explain()
		messages[event] = object{"$ref": d.addMessage(c, event, x.Means, object{"externalDocs": object{"url": x.Page}})}
	}
	if unknown {
		d.schemas["unknown"] = ncs.EnvelopeSchema()
		messages["unknown"] = object{"$ref": d.addMessage(c, "unknown", "An event of a type that this version of the relay does not know.", nil)}
	}
	channel := object{"address": address, "servers": servers, "messages": messages, "description": c.Kind() + " sink " + c.Name}
	operation := object{"action": "send", "channel": object{"$ref": "#/channels/" + name}}
	if c.Owner != "" {
		tags := []any{object{"name": "owner:" + c.Owner}}
		channel["tags"], operation["tags"] = tags, tags
		channel["x-owner"] = c.Owner
	}
	if c.HTTP != nil {
		operation["bindings"] = object{"http": object{"method": "POST", "bindingVersion": "0.3.0"}}
	}
	d.channels[name], d.operations["send:"+name] = channel, operation
}

// addMessage adds what a sink sends of an event type, and returns where it is. A file has a line of JSON with the body as text.
func (d *asyncAPI) addMessage(c *sinks.Config, event, means string, more object) (ref string) {
	payload := object{"$ref": "#/components/schemas/" + event}
	m := object{"name": event, "title": event, "summary": means, "contentType": "application/json", "payload": payload}
	for k, v := range more {
		m[k] = v
	}
	switch {
	case c.File != nil:
		m["payload"] = object{
			"type": "object", "required": []string{"id", "body"},
			"properties": object{"id": object{"type": "string"}, "body": object{"type": "string", "contentMediaType": "application/json", "contentSchema": payload}},
		}
	case c.Kafka != nil:
		m["bindings"] = object{"kafka": object{"key": object{"type": "string", "description": "what the event is about"}, "bindingVersion": "0.5.0"}}
		fallthrough
	default:
		m["headers"] = object{"$ref": "#/components/schemas/" + headersOf(c)}
	}
	name := c.Name + "." + event
	d.messages[name] = m
	return "#/components/messages/" + name
}
