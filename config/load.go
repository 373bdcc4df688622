package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"ncs-relay/relay/problem"
	"ncs-relay/sinks"
)

// Load reads and checks a file. The Config is nil when the report has errors. env looks up environment variables, as
// os.LookupEnv does. kinds are those that sinks may be.
func Load(file string, env func(string) (string, bool), kinds []sinks.Kind) (*Config, *Report) {
	return load(file, newDecoder(&Report{File: file}, "", env, kinds))
}

// LoadAway is Load on a machine that lacks what the relay's own has, such as CI's: variables that are not set, and files other than
// the catalogue that cannot be read, are no mistakes. Config.Absent lists them; nothing is served with such a Config.
func LoadAway(file string, env func(string) (string, bool), kinds []sinks.Kind) (*Config, *Report) {
	d := newDecoder(&Report{File: file}, "", env, kinds)
	d.away = true
	return load(file, d)
}

func load(file string, d *decoder) (*Config, *Report) {
	fail := func(err error) (*Config, *Report) {
		return nil, &Report{File: file, Problems: []Problem{{Message: "cannot be read: " + reason(err)}}}
	}
	absolute, err := filepath.Abs(file)
	if err != nil {
		return fail(err)
	}
	data, err := readBounded(absolute, maxFile+1) // a larger file is reported by Parse
	if err != nil {
		return fail(err)
	}
	d.dir = filepath.Dir(absolute)
	return d.parse(data)
}

// Parse checks the contents of a file called name; relative paths in it are relative to dir. It reads the secret files and the
// catalogue named there, and nothing else.
func Parse(name string, data []byte, dir string, env func(string) (string, bool), kinds []sinks.Kind) (*Config, *Report) {
	return newDecoder(&Report{File: name}, dir, env, kinds).parse(data)
}

func (d *decoder) parse(data []byte) (*Config, *Report) {
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors begin UTF-8 with a byte order mark
	c := d.config(data)
	d.report.finish(data)
	if d.report.Err() != nil {
		return nil, d.report
	}
	return c, d.report
}

// config gives a Config that may be used if no errors are reported.
func (d *decoder) config(data []byte) *Config {
	root := parseYAML(data, "sources", d.report)
	if root == nil {
		return nil
	}
	c := &Config{written: d.written, place: d.nearest, kinds: d.kinds}
	v := reflect.ValueOf(c).Elem()
	d.at[""] = startOf(root)
	d.setDefaults(v)
	d.section(root, v, "")
	d.check(v, "")
	d.readSecrets(c)
	d.lookAtFiles()
	if d.readOverlay(c) { // else all that it may name would be wrong too
		d.checkTogether(c)
	}
	for _, p := range d.unquoted {
		d.report.add(p)
	}
	c.Absent = d.absent
	return c
}

// check calls Check, and Warn where there is one, on every struct below v.
func (d *decoder) check(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			d.check(v.Elem(), path)
		}
	case reflect.Slice:
		for i := range v.Len() {
			d.check(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	case reflect.Struct:
		if c, ok := v.Addr().Interface().(interface {
			Check(report problem.Report)
		}); ok {
			c.Check(func(relative, message, hint string, values ...any) {
				d.problem(Error, join(path, relative), message, hint, values...)
			})
		}
		if w, ok := v.Addr().Interface().(interface {
			Warn(report problem.Report)
		}); ok {
			w.Warn(func(relative, message, hint string, values ...any) {
				d.problem(Warning, join(path, relative), message, hint, values...)
			})
		}
		for _, f := range fieldsOf(v.Type(), d.kinds) {
			d.check(f.in(v), join(path, f.name))
		}
	}
}

// problem reports what is wrong with a decoded value, unless it, or what it is in, could not be decoded: then it has not
// got the value that the file gives it. The values fill the verbs of message and hint.
func (d *decoder) problem(severity Severity, path, message, hint string, values ...any) {
	for p := path; ; p = parent(p) {
		if d.failed[p] {
			return
		}
		if why, unread := d.unread[p]; unread && severity == Error {
			d.miss(p, why)
			return
		}
		if p == "" {
			break
		}
	}
	if severity == Error {
		delete(d.unquoted, path)
	}
	at := d.nearest(path)
	message, hint = problem.Text(d.shownAt(path), message, hint, values...)
	d.report.add(Problem{Line: at.line, Column: at.column, Path: path, Message: message, Hint: hint, Severity: severity})
}

// nearest is where a path stands in the file, or, for what is not there, what it would be in.
func (d *decoder) nearest(path string) position {
	for {
		if at, ok := d.at[path]; ok {
			return at
		}
		path = parent(path)
	}
}

func parent(path string) string { return path[:max(0, strings.LastIndexAny(path, ".["))] }

// readBounded reads at most limit bytes of a file.
func readBounded(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// reason is what an operating system's error says, without the name of the file.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err.Error()
}
