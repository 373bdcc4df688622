package config

import (
	"bytes"
	"path/filepath"
	"reflect"

	"ncs-relay/relay/ncs"
)

// readOverlay fills the Catalogue, and reports whether what the configuration says of products and events can be judged by it.
func (d *decoder) readOverlay(c *Config) bool {
	if c.Overlay == "" || d.failed["catalogue"] {
		c.Catalogue = ncs.Builtin()
		return c.Overlay == ""
	}
	data, err := readBounded(c.Overlay, maxFile+1)
	if err != nil {
		d.problem(Error, "catalogue", "file %q cannot be read: "+reason(err), "give a file that names products and events, or remove the line", c.Overlay)
		return false
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	o := newDecoder(&Report{}, d.dir, d.env, nil)
	c.Catalogue = o.overlay(data)
	o.report.finish(data)
	for _, p := range o.report.Problems {
		p.File = d.named(c.Overlay)
		d.report.add(p)
	}
	return c.Catalogue != nil
}

// overlay gives a Catalogue unless the file is nothing that can be read.
func (d *decoder) overlay(data []byte) *ncs.Catalogue {
	root := parseYAML(data, "products", d.report)
	if root == nil {
		return nil
	}
	var o ncs.Overlay
	d.at[""] = startOf(root)
	d.section(root, reflect.ValueOf(&o).Elem(), "")
	return o.Catalogue(func(path, message, hint string, values ...any) {
		d.problem(Error, path, message, hint, values...)
	})
}

// named is a file as the configuration's own directory sees it: as people write it.
func (d *decoder) named(file string) string {
	if relative, err := filepath.Rel(d.dir, file); err == nil && filepath.IsLocal(relative) {
		return filepath.Join(filepath.Dir(d.report.File), relative)
	}
	return file
}
