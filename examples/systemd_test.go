package examples_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/config"
	"ncs-relay/sinks"
)

// unit is a systemd unit: the values of each setting, by section and key.
type unit map[string][]string

func readUnit(t *testing.T, name string) unit {
	text, err := os.ReadFile(filepath.Join("systemd", name))
	require.NoError(t, err)
	u, section := unit{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch key, value, isSetting := strings.Cut(line, "="); {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		default:
			require.True(t, isSetting, line)
			u[section+"."+key] = append(u[section+"."+key], value)
		}
	}
	return u
}

// the returns the one value of a setting.
func (u unit) the(t *testing.T, setting string) string {
	t.Helper()
	require.Len(t, u[setting], 1, setting)
	return u[setting][0]
}

// environment is what the service's Environment settings set, with its specifiers replaced.
func (u unit) environment(credentials, state string) (variables []string) {
	for _, line := range u["Service.Environment"] {
		variables = append(variables, strings.Fields(strings.NewReplacer("%d", credentials, "%S", state).Replace(line))...)
	}
	return variables
}

// unitPlace is a directory with what systemd would make for the service: its credentials, and where its state goes.
func unitPlace(t *testing.T, service unit) (credentials, state string) {
	credentials, state = t.TempDir(), t.TempDir()
	for _, credential := range service["Service.LoadCredential"] {
		name, source, _ := strings.Cut(credential, ":")
		require.Equal(t, "/etc/ncs-relay/secrets/"+name, source, "the README puts secrets there")
		require.NoError(t, os.WriteFile(filepath.Join(credentials, name), []byte("one-secret-of-a-product\n"), 0o400))
	}
	return credentials, state
}

func lookup(environment []string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, variable := range environment {
			if key, value, _ := strings.Cut(variable, "="); key == name {
				return value, true
			}
		}
		return "", false
	}
}

func TestSystemdUnitFitsItsConfiguration(t *testing.T) {
	t.Parallel()
	service, socket := readUnit(t, "ncs-relay.service"), readUnit(t, "ncs-relay.socket")
	credentials, state := unitPlace(t, service)
	cfg, report := config.Load("systemd/relay.yaml", lookup(service.environment(credentials, state)), sinks.Kinds)
	require.Empty(t, report.String())

	_, port, err := net.SplitHostPort(cfg.Listen)
	require.NoError(t, err)
	require.Equal(t, port, socket.the(t, "Socket.ListenStream"))
	backlog, err := strconv.Atoi(socket.the(t, "Socket.Backlog"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, backlog, 128)

	stop, err := strconv.Atoi(service.the(t, "Service.TimeoutStopSec"))
	require.NoError(t, err)
	requireShutdownFits(t, cfg, time.Duration(stop)*time.Second)

	descriptors, err := strconv.Atoi(service.the(t, "Service.LimitNOFILE"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, descriptors, cfg.Limits.Connections+1024, "what check --here asks for")

	for _, file := range cfg.Files() {
		require.Equal(t, credentials, filepath.Dir(file), "a secret that is no credential")
		require.FileExists(t, file)
	}
	home := filepath.Join(state, service.the(t, "Service.StateDirectory"))
	require.Equal(t, home, filepath.Dir(cfg.DataDir), "written outside of the state directory")
	require.NotContains(t, service, "Service.ProcSubset", "cuts the queue of listening sockets")
	require.Equal(t, "ncs-relay.socket", service.the(t, "Unit.Requires"))
	require.Equal(t, "0", service.the(t, "Unit.StartLimitIntervalSec"), "a start limit closes the socket")
	require.Equal(t, "0", socket.the(t, "Socket.TriggerLimitIntervalSec"))
}

// TestSystemdUnitRunsTheProgram runs the command of the unit as systemd does: with its environment and a passed socket, which
// is at another port here.
func TestSystemdUnitRunsTheProgram(t *testing.T) {
	t.Parallel()
	built := needsProgram(t)
	service := readUnit(t, "ncs-relay.service")
	credentials, state := unitPlace(t, service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	socket, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close()) // the file keeps the socket open
	defer socket.Close()
	text, err := os.ReadFile("systemd/relay.yaml")
	require.NoError(t, err)
	listen := `listen: ":8080"`
	require.Contains(t, string(text), listen)
	configured := strings.Replace(string(text), listen, `listen: "`+address+"\"\nadmin: {listen: \"127.0.0.1:0\"}", 1)
	file := filepath.Join(t.TempDir(), "relay.yaml")
	require.NoError(t, os.WriteFile(file, []byte(configured), 0o600))

	words := strings.Fields(service.the(t, "Service.ExecStart"))
	require.Equal(t, "/usr/local/bin/ncs-relay", words[0])
	command := strings.Replace(strings.Join(words[1:], " "), "/etc/ncs-relay/relay.yaml", file, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" `+command, built)
	cmd.Env = append(os.Environ(), service.environment(credentials, state)...)
	cmd.ExtraFiles = []*os.File{socket}
	log, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())

	client := &http.Client{Timeout: 30 * time.Second}
	resp, err := client.Get("http://" + address + "/ncs/unknown") // waits for it to start
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
	require.DirExists(t, filepath.Join(state, "ncs-relay", "journal"))
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	var said struct{ Listen string }
	var seen bytes.Buffer
	for lines := bufio.NewScanner(log); lines.Scan(); {
		seen.Write(append(lines.Bytes(), '\n'))
		if bytes.Contains(lines.Bytes(), []byte(`"serving"`)) {
			require.NoError(t, json.Unmarshal(lines.Bytes(), &said))
		}
	}
	require.NoError(t, cmd.Wait(), seen.String())
	require.Equal(t, address, said.Listen, seen.String())
	require.NotContains(t, seen.String(), `"WARN"`)
}

func TestSystemdUnitsAreWhatSystemdReads(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze, of Debian's package systemd")
	}
	built := needsProgram(t)
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"ncs-relay.service", "ncs-relay.socket"} {
		text, err := os.ReadFile(filepath.Join("systemd", name))
		require.NoError(t, err)
		file := filepath.Join(dir, name)
		here := strings.ReplaceAll(string(text), "/usr/local/bin/ncs-relay", built) // verify looks for it
		require.NoError(t, os.WriteFile(file, []byte(here), 0o600))
		files = append(files, file)
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no"}, files...)...).CombinedOutput()
	require.NoError(t, err, string(out))
	for line := range strings.Lines(string(out)) { // what systemd does not know it ignores, with a line and status 0
		require.NotContains(t, line, dir, line)
		require.NotContains(t, line, "ncs-relay.", line)
	}
}
