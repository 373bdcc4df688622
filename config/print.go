package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"ncs-relay/relay"
)

// Redacted writes the configuration in effect as YAML, with all defaults. Secrets read <secret>, URLs as in logs, and
// values with variables in them as they stand in the file.
func (c *Config) Redacted() ([]byte, error) {
	return yaml.Marshal(c.printed(reflect.ValueOf(c).Elem(), field{}, ""))
}

// Hash is a short name for what is in effect and must be the same in all replicas of a journal on Kafka: everything that Redacted
// writes but what names a process and its addresses. What Redacted hides (secrets, URLs below the host, values of variables) is not in it.
func (c *Config) Hash() string {
	shared := *c
	shared.Listen, shared.DataDir, shared.Replica = "", "", ""
	shared.Admin.Listen, shared.Admin.Advertise = "", ""
	text, err := shared.Redacted()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}

func (c *Config) printed(v reflect.Value, f field, path string) any {
	if s, ok := v.Interface().(relay.Secret); ok {
		return s.String()
	}
	raw, hasVariables := c.written[path]
	switch {
	case f.is("masked") && hasVariables:
		return relay.MaskURL(raw)
	case f.is("masked"):
		return strings.ReplaceAll(relay.MaskURL(v.String()), "${", "$${")
	case hasVariables:
		return raw
	}
	switch v.Kind() {
	case reflect.Pointer:
		return c.printed(v.Elem(), f, path)
	case reflect.Struct:
		return c.printedSection(v, path)
	case reflect.Slice:
		items := make([]any, v.Len())
		for i := range items {
			items[i] = c.printed(v.Index(i), f, fmt.Sprintf("%s[%d]", path, i))
		}
		return items
	case reflect.Map:
		entries := map[string]any{} // yaml.Marshal sorts them
		for _, key := range v.MapKeys() {
			entries[key.String()] = c.printed(v.MapIndex(key), field{}, path+"["+key.String()+"]")
		}
		return entries
	}
	return printed(v, f)
}

// printedSection leaves out what is not set, and what cannot be.
func (c *Config) printedSection(v reflect.Value, path string) yaml.MapSlice {
	var section yaml.MapSlice
	chooses, _ := v.Addr().Interface().(interface{ Unused(key string) bool })
	for _, f := range fieldsOf(v.Type(), c.kinds) {
		if chooses != nil && chooses.Unused(f.name) {
			continue
		}
		fv := f.in(v)
		empty := fv.IsZero() || (fv.Kind() == reflect.Slice || fv.Kind() == reflect.Map) && fv.Len() == 0
		if !empty || fv.Kind() == reflect.Int || fv.Kind() == reflect.Int64 {
			section = append(section, yaml.MapItem{Key: f.name, Value: c.printed(fv, f, join(path, f.name))})
		}
	}
	return section
}

// printed returns a single value in the form in which a file gives it.
func printed(v reflect.Value, f field) any {
	switch {
	case v.Type() == durationType:
		return printDuration(time.Duration(v.Int()))
	case f.is("bytes"):
		return printSize(v.Int())
	case v.Kind() == reflect.String:
		return strings.ReplaceAll(v.String(), "${", "$${")
	}
	return v.Interface()
}

func printDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d > 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	if minutes, whole := strings.CutSuffix(text, "m0s"); whole {
		text = minutes + "m"
	}
	if hours, whole := strings.CutSuffix(text, "h0m"); whole {
		text = hours + "h"
	}
	return text
}

func printSize(n int64) string {
	for _, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if size := sizeUnits[unit]; n >= size && n%size == 0 {
			return fmt.Sprintf("%d%s", n/size, unit)
		}
	}
	return fmt.Sprint(n)
}
