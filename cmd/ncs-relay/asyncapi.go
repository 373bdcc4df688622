package main

import (
	"fmt"
	"slices"

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
			cfg, report := loadConfig(file)
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
	kind, ok := c.Kind.(sinks.Documented)
	if !ok {
		return
	}
	protocol, hosts, address, operation, message := kind.Document()
	clustered, topical := c.Kind.(sinks.Clustered)
	b := bindings{d.addServers(c.Name, protocol, hosts, topical), operation, message}
	d.addHeaders(c)
	if !topical {
		d.addChannel(c, c.Name, address, b, infos, len(reach.Unknown) > 0)
		return
	}
	for _, topic := range sinks.Topics(clustered, reach) {
		known := slices.DeleteFunc(slices.Clone(infos), func(i ncs.Info) bool { return clustered.Topics([]ncs.Info{i})[0] != topic })
		unknown := slices.Contains(sinks.Topics(clustered, route.Reach{Unknown: reach.Unknown}), topic)
		d.addChannel(c, c.Name+":"+topic, topic, b, known, unknown)
	}
}

// bindings are what is special about how a sink sends; nil = nothing.
type bindings struct {
	servers            []any
	operation, message object
}

func (d *asyncAPI) addServers(name, protocol string, hosts []string, numbered bool) []any {
	var refs []any
	for i, host := range hosts {
		server := name
		if numbered {
			server += fmt.Sprint("-", i+1)
		}
		d.servers[server] = object{"host": host, "protocol": protocol}
		refs = append(refs, object{"$ref": "#/servers/" + server})
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

func (d *asyncAPI) addChannel(c *sinks.Config, name, address string, b bindings, known []ncs.Info, unknown bool) {
	messages := object{}
	for _, i := range known {
		event := i.Product + "." + i.Event
		body := i.Schema()
		body.ID = "" // references in the document are from its root
		d.schemas[event] = body
		x := i.Explain()
		messages[event] = object{"$ref": d.addMessage(c, b, event, x.Means, docsAt(x.Page))}
	}
	if unknown {
		d.schemas["unknown"] = ncs.EnvelopeSchema()
		messages["unknown"] = object{"$ref": d.addMessage(c, b, "unknown", "An event of a type that this version of the relay does not know.", nil)}
	}
	channel := object{"address": address, "servers": b.servers, "messages": messages, "description": c.Kind.Key() + " sink " + c.Name}
	operation := object{"action": "send", "channel": object{"$ref": "#/channels/" + name}}
	if c.Owner != "" {
		tags := []any{object{"name": "owner:" + c.Owner}}
		channel["tags"], operation["tags"] = tags, tags
		channel["x-owner"] = c.Owner
	}
	if b.operation != nil {
		operation["bindings"] = b.operation
	}
	d.channels[name], d.operations["send:"+name] = channel, operation
}

func docsAt(page string) object {
	if page == "" {
		return nil
	}
	return object{"externalDocs": object{"url": page}}
}

// addMessage adds what a sink sends of an event type, and returns where it is.
func (d *asyncAPI) addMessage(c *sinks.Config, b bindings, event, means string, more object) (ref string) {
	payload := object{"$ref": "#/components/schemas/" + event}
	m := object{"name": event, "title": event, "summary": means, "contentType": "application/json", "payload": payload}
	for k, v := range more {
		m[k] = v
	}
	if kind, ok := c.Kind.(sinks.Wrapper); ok {
		m["payload"] = kind.Wrap(payload)
	}
	if b.message != nil {
		m["bindings"] = b.message
	}
	if d.schemas[headersOf(c)] != nil {
		m["headers"] = object{"$ref": "#/components/schemas/" + headersOf(c)}
	}
	name := c.Name + "." + event
	d.messages[name] = m
	return "#/components/messages/" + name
}
