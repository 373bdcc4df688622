package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/config"
	"ncs-relay/sinks"
)

const root = ".." // of the repository

// block is a fenced block or a table of a document, with the comment that stands before it: <!-- kind: argument -->.
type block struct {
	kind, argument string
	language       string // "" = a table
	text           string
}

var marked = regexp.MustCompile(`(?ms)^(?:<!-- (\w+)(?:: (\S+))? -->\n)?(?:` + "```" + `(\w+)\n(.*?)^` + "```" + `$|((?:^\|[^\n]*\n)+))`)

// documents are the README and what it leads users to.
var documents = []string{"README.md", "sinks/README.md", "config/README.md", "cmd/ncs-relay/README.md", "examples/README.md", "examples/cluster/README.md", "examples/consumers/README.md", "examples/observability/README.md",
	"examples/systemd/README.md", "examples/compose/README.md", "examples/kubernetes/README.md"}

// readme returns all documents, one after the other.
func readme(t *testing.T) (text string, blocks []block) {
	for _, name := range documents {
		b, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		for _, m := range marked.FindAllStringSubmatch(string(b), -1) {
			blocks = append(blocks, block{kind: m[1], argument: m[2], language: m[3], text: m[4] + m[5]})
		}
		text += string(b)
	}
	return text, blocks
}

// find returns the one block of a kind.
func find(t *testing.T, blocks []block, kind, argument string) string {
	i := slices.IndexFunc(blocks, func(b block) bool { return b.kind == kind && b.argument == argument })
	require.GreaterOrEqual(t, i, 0, "no document has a block <!-- %s: %s -->", kind, argument)
	return blocks[i].text
}

func TestReadmeConfigurationsLoad(t *testing.T) {
	t.Parallel()
	_, blocks := readme(t)
	for _, b := range blocks {
		switch {
		case b.kind == "config":
			dir := t.TempDir()
			writeCertificate(t, dir)
			text := strings.NewReplacer("/etc/ncs-relay/tls.crt", filepath.Join(dir, "client.pem"), "/etc/ncs-relay/tls.key", filepath.Join(dir, "client-key.pem")).Replace(b.text)
			_, report := config.Parse("README.md", []byte(text), dir, environment(t), sinks.Kinds)
			require.Empty(t, report.String(), b.text)
		case b.kind == "from":
			file, err := os.ReadFile(filepath.Join(root, b.argument))
			require.NoError(t, err)
			require.Contains(t, string(file), b.text)
		default:
			require.NotEqual(t, "yaml", b.language, "mark it as config, or as taken from an example:\n%s", b.text)
		}
	}
}

// cells are the rows of a table.
func cells(table string) [][]string {
	var rows [][]string
	for line := range strings.Lines(table) {
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		rows = append(rows, row)
	}
	return rows[2:] // without head and rule
}

func TestReadmeListsEveryKeyWithItsDefault(t *testing.T) {
	t.Parallel()
	_, blocks := readme(t)
	documented := map[string]string{}
	for _, row := range cells(find(t, blocks, "keys", "")) {
		documented[strings.Trim(row[0], "`")] = strings.Trim(row[2], "`")
	}
	actual := map[string]string{}
	listKeys(reflect.ValueOf(&config.Config{}).Elem(), "", actual)
	actual["sinks[].propagate_trace"] = "true" // its nil means true
	for row := range documented {              // with a * for the keys below, which are those of another section
		if section, all := strings.CutSuffix(row, ".*"); all {
			maps.DeleteFunc(actual, func(key, _ string) bool { return strings.HasPrefix(key, section+".") })
			actual[row] = "-"
		}
	}
	if diff := cmp.Diff(actual, documented); diff != "" {
		t.Errorf("keys and defaults (-code +README):\n%s", diff)
	}
}

// listKeys notes the keys of a configuration struct with their defaults, as they are written in a file.
func listKeys(v reflect.Value, path string, keys map[string]string) {
	if s, ok := v.Addr().Interface().(interface{ SetDefaults() }); ok {
		s.SetDefaults()
	}
	for i := range v.NumField() {
		if v.Type().Field(i).Type == reflect.TypeFor[sinks.Kind]() {
			for _, k := range sinks.Kinds {
				listKeys(reflect.New(reflect.TypeOf(k).Elem()).Elem(), path+k.Key()+".", keys)
			}
			continue
		}
		key, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		if key == "" || key == "-" {
			continue
		}
		f := v.Field(i)
		at := path + key
		switch {
		case f.Kind() == reflect.Pointer && f.Type().Elem().Kind() == reflect.Struct:
			listKeys(reflect.New(f.Type().Elem()).Elem(), at+".", keys)
		case f.Kind() == reflect.Slice && f.Type().Elem().Kind() == reflect.Struct && hasKeys(f.Type().Elem()):
			listKeys(reflect.New(f.Type().Elem()).Elem(), at+"[].", keys)
		case f.Kind() == reflect.Struct && hasKeys(f.Type()):
			listKeys(f, at+".", keys)
		default:
			keys[at] = written(f, options)
		}
	}
}

func hasKeys(t reflect.Type) bool {
	return slices.ContainsFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Tag.Get("yaml") != "" })
}

// written is a default as the README writes it; - is none.
func written(v reflect.Value, options string) string {
	switch value := v.Interface().(type) {
	case time.Duration:
		for _, unit := range []struct {
			size time.Duration
			name string
			from time.Duration // shorter ones are written in the next unit: 72h, not 3d
		}{{24 * time.Hour, "d", 7 * 24 * time.Hour}, {time.Hour, "h", 0}, {time.Minute, "m", 0}, {time.Second, "s", 0}} {
			if value%unit.size == 0 && value >= unit.from {
				return fmt.Sprintf("%d%s", value/unit.size, unit.name)
			}
		}
		return value.String()
	case int64:
		for unit, name := range map[int64]string{1 << 30: "GiB", 1 << 20: "MiB"} {
			if options == "bytes" && value >= unit && value < unit<<10 && value%unit == 0 {
				return fmt.Sprintf("%d%s", value/unit, name)
			}
		}
		return fmt.Sprint(value)
	case int, bool:
		return fmt.Sprint(value)
	case string:
		if value != "" {
			return value
		}
	}
	return "-"
}

// That the table is what the page shows, names and labels, is tested with the real program in cmd/ncs-relay.
func TestReadmeExplainsEveryMetricItMentions(t *testing.T) {
	t.Parallel()
	text, _ := readme(t)
	documented := documentedMetrics(t)
	for _, name := range regexp.MustCompile(`ncs_relay_\w+`).FindAllString(text, -1) {
		require.True(t, documented[name], "%s is mentioned and not in the table", name)
	}
}

var programDir string // set by TestMain

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if programDir, err = os.MkdirTemp("", "ncs-relay-readme-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(programDir)
	return m.Run()
}

// program builds the program once for all tests.
var program = sync.OnceValues(func() (string, error) {
	build := exec.Command("go", "build", "-o", programDir+"/", "./cmd/ncs-relay")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return filepath.Join(programDir, "ncs-relay"), nil
})

// needsProgram skips where building it would take too long.
func needsProgram(t *testing.T) string {
	if testing.Short() {
		t.Skip("builds the program")
	}
	built, err := program()
	require.NoError(t, err)
	return built
}

func TestReadmeCommandsExist(t *testing.T) {
	t.Parallel()
	built := needsProgram(t)
	text, blocks := readme(t)
	called := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)(?:`|^|NCS_SECRET=\\S+ )ncs-relay ([a-z]+)").FindAllStringSubmatch(text, -1) {
		called[m[1]] = true
	}
	for name := range called {
		out, err := exec.Command(built, name, "--help").CombinedOutput()
		require.NoError(t, err, "ncs-relay %s: %s", name, out)
	}
	help, err := exec.Command(built, "--help").CombinedOutput()
	require.NoError(t, err)
	_, commands, _ := strings.Cut(string(help), "Available Commands:\n")
	commands, _, _ = strings.Cut(commands, "\n\n")
	table := find(t, blocks, "commands", "")
	for line := range strings.Lines(commands) {
		if name := strings.Fields(line)[0]; name != "help" && name != "completion" {
			require.Contains(t, table, "ncs-relay "+name)
		}
	}
	for _, row := range cells(table) {
		words := strings.Fields(strings.Trim(row[0], "`"))[1:]
		last := slices.IndexFunc(append(words, "-"), func(w string) bool { return strings.ToLower(w) != w || strings.ContainsAny(w, "-[") })
		requireFlags(t, built, words[:last], strings.Join(row, " "))
	}
}

// requireFlags asks a command whether it has each flag that the text mentions.
func requireFlags(t *testing.T, built string, command []string, text string) {
	t.Helper()
	help, err := exec.Command(built, append(slices.Clone(command), "--help")...).CombinedOutput()
	require.NoError(t, err, "ncs-relay %v: %s", command, help)
	for _, flag := range regexp.MustCompile(`--[a-z0-9-]+`).FindAllString(text, -1) {
		require.Contains(t, string(help), flag, text)
	}
}

// workplace is a directory like a clone in which `go build` of the README was run.
func workplace(t *testing.T) string {
	built := needsProgram(t)
	dir := t.TempDir()
	examples, err := filepath.Abs(".")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(examples, filepath.Join(dir, "examples")))
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	require.NoError(t, os.Symlink(built, filepath.Join(dir, "bin", "ncs-relay")))
	return dir
}

// shell runs commands of the README.
func shell(t *testing.T, dir, commands string) string {
	cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", commands)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s\n%s", commands, out)
	return string(out)
}

const path = `export PATH="$PWD/bin:$PATH"` + "\n"

func TestReadmeRoutingIsTrue(t *testing.T) {
	t.Parallel()
	_, blocks := readme(t)
	dir := workplace(t)
	out := shell(t, dir, path+find(t, blocks, "run", "route"))
	if diff := cmp.Diff(find(t, blocks, "output", "route"), out); diff != "" {
		t.Errorf("output of route (-README +program):\n%s", diff)
	}
	require.Contains(t, shell(t, dir, path+find(t, blocks, "run", "expect")), "bodies go where expected")
}

func TestReadmeQuickStartWorks(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"sh", "openssl", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	_, blocks := readme(t)
	dir := workplace(t)

	build := "go build -o bin/ncs-relay ./cmd/ncs-relay\n"
	steps := find(t, blocks, "run", "build")
	require.Contains(t, steps, build)
	steps = strings.Replace(steps, build, "", 1) // is done
	require.Contains(t, shell(t, dir, steps), "no mistakes, 0 warnings")

	// Only the ports differ from what a reader does, and the time to shut down.
	file, err := os.OpenFile(filepath.Join(dir, "relay.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = file.WriteString("\nlisten: 127.0.0.1:0\nadmin: {listen: \"127.0.0.1:0\"}\nshutdown: {delay: 0s, timeout: 5s}\n")
	require.NoError(t, err)
	require.NoError(t, file.Close())

	_, exports, _ := strings.Cut(steps, "export NCS_SECRET")
	exports, _, _ = strings.Cut(exports, "\n")
	address := serve(t, dir, path+"export NCS_SECRET"+exports+"\nexec "+find(t, blocks, "run", "serve"))
	here := func(commands string) string { return strings.ReplaceAll(commands, "localhost:8080", address) }

	posted := shell(t, dir, here(find(t, blocks, "run", "post")))
	require.Contains(t, posted, `{"status":"accepted","event":"`)
	body, err := os.ReadFile("multi-team/uploaded.json")
	require.NoError(t, err)
	var line struct{ Event, Body string }
	last := posted[strings.LastIndex(posted, "\n{\"id\":")+1:] // tail may come before the delivery
	for deadline := time.Now().Add(10 * time.Second); !strings.HasPrefix(last, `{"id":`) && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		written, _ := os.ReadFile(filepath.Join(dir, "archive", "events.jsonl"))
		last = string(written)
	}
	require.NoError(t, json.Unmarshal([]byte(last), &line), posted)
	require.Equal(t, "uploaded", line.Event)
	require.Equal(t, string(body), line.Body)

	secret := path + "export NCS_SECRET" + exports + "\n"
	require.Contains(t, shell(t, dir, secret+here(find(t, blocks, "run", "send"))), `200 {"status":"duplicate"`)
}

// serve starts the relay and gives the address of its ingress once it serves.
func serve(t *testing.T, dir, commands string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // that of t ends too early for a shutdown
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", commands)
	cmd.Dir = dir
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var seen bytes.Buffer
	address := ""
	lines := bufio.NewScanner(log)
	for address == "" && lines.Scan() {
		seen.Write(lines.Bytes())
		var record struct{ Msg, Listen string }
		if json.Unmarshal(lines.Bytes(), &record) == nil && record.Msg == "serving" {
			address = record.Listen
		}
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for lines.Scan() {
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-drained
		require.NoError(t, cmd.Wait())
	})
	require.NotEmpty(t, address, seen.String())
	return address
}
