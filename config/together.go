package config

import (
	"fmt"
	"math"
	"net"

	"ncs-relay/relay/route"
	"ncs-relay/relay/spelling"
	"ncs-relay/sinks"
)

// checkTogether checks what no package sees alone: what must differ between entries, and what refers to others.
func (d *decoder) checkTogether(c *Config) {
	d.nameReplica(c)
	d.checkJournal(c)
	d.checkSources(c)
	d.checkSinks(c)
	d.compileRoutes(c)
	if clash(c.Listen, c.Admin.Listen) {
		d.problem(Error, "admin.listen", "%q is taken by the ingress, which listens on %q", "use another port", c.Admin.Listen, c.Listen)
	}
	if host, _, err := net.SplitHostPort(c.Admin.Listen); err == nil && !isLoopback(host) && !c.Admin.HasToken() {
		d.problem(Note, "admin.token", "no token is given, so the admin API is closed to everybody", "metrics and health need none")
	}
}

// taken tells of values that were used before.
type taken map[string]string // value -> path of its first use

func (t taken) by(value, path string) (first string, again bool) {
	if value == "" { // reported as missing
		return "", false
	}
	if first, again = t[value]; !again {
		t[value] = path
	}
	return first, again
}

func (d *decoder) unique(t taken, what, value, path string) {
	if first, again := t.by(value, path); again {
		d.problem(Error, path, what+" %q is taken by "+first, "", value)
	}
}

func (d *decoder) checkSources(c *Config) {
	names, paths := taken{}, taken{}
	paths.by(c.HealthPath, "health_path")
	for i, s := range c.Sources {
		at := fmt.Sprintf("sources[%d].", i)
		d.unique(names, "name", s.Name, at+"name")
		d.unique(paths, "path", s.Path, at+"path")
		for j, p := range s.Products {
			if _, err := c.Catalogue.ParseProduct(p); err != nil {
				d.problem(Error, fmt.Sprintf("%sproducts[%d]", at, j), "unknown product %q", spelling.Hint(p, c.Catalogue.ProductNames()), p)
			}
		}
		if s.TestMatch != "" {
			if _, err := route.CompileExpr(s.TestMatch); err != nil {
				d.problem(Error, at+"test_match", "%v", "", err)
			}
		}
		if s.Signature == "any" {
			d.problem(Warning, at+"signature", "signatures made with SHA-1 are accepted where no other came", "use v2")
		}
	}
}

func (d *decoder) checkSinks(c *Config) {
	names, owned := taken{}, taken{}
	var backlogs int64
	for _, s := range c.Sinks {
		backlogs += min(s.Backlog.MaxSize, math.MaxInt64-backlogs)
	}
	if c.Journal.Kafka == nil && backlogs > c.Journal.MaxSize {
		d.problem(Warning, "journal.max_size", "the backlogs of %d sinks may add up to %s, and the journal holds %s", "raise it, or lower backlog.max_size: a full journal refuses notifications", len(c.Sinks), size(backlogs), size(c.Journal.MaxSize))
	}
	for i, s := range c.Sinks {
		at := fmt.Sprintf("sinks[%d].", i)
		d.unique(names, "name", s.Name, at+"name")
		if kind, ok := s.Kind.(sinks.Owner); ok {
			path, value := kind.Owns()
			d.unique(owned, s.Kind.Key(), value, at+s.Kind.Key()+"."+path)
		}
	}
}

func isLoopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }

func (d *decoder) compileRoutes(c *Config) {
	o := route.Options{Catalogue: c.Catalogue, Rules: c.Routes, Unmatched: c.Unmatched, Report: func(s route.Severity, path, message, hint string, values ...any) {
		d.problem(severities[s], path, message, hint, values...)
	}}
	for _, s := range c.Sinks {
		o.Sinks = append(o.Sinks, s.Name)
	}
	for _, s := range c.Sources {
		o.Sources = append(o.Sources, route.Source{Name: s.Name, Products: s.Products})
	}
	c.Router = route.Compile(o)
	if len(c.Routes) == 0 && len(c.Unmatched) == 0 {
		d.problem(Warning, "routes", "events go nowhere: there are no routes", "they are kept for the journal's retention only")
	}
}

var severities = map[route.Severity]Severity{route.Error: Error, route.Warning: Warning, route.Note: Note}

// clash reports whether two addresses cannot both be listened on. Those that are no addresses are reported elsewhere.
func clash(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	return hostA == hostB || isEvery(hostA) || isEvery(hostB)
}

func isEvery(host string) bool { return host == "" || net.ParseIP(host).IsUnspecified() }
