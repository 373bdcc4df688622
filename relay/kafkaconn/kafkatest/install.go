package kafkatest

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Version is the version of Apache Kafka that runs where Options ask for no other.
const Version = "4.3.1"

const (
	homeVariable    = "NCS_RELAY_KAFKA_HOME"    // a folder that holds a folder of jars for each version, instead of the user's cache
	requireVariable = "NCS_RELAY_REQUIRE_KAFKA" // 1 = a test that cannot have a broker fails
)

//go:embed pom.xml
var pom []byte

//go:embed log4j2.properties
var log4j []byte

// installTimeout bounds one download of about 55 MB.
const installTimeout = 5 * time.Minute

// require ends the test where a real broker is not wanted or cannot be had.
func require(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped with -short: tests against a real Apache Kafka")
	}
	for _, tool := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(tool); err != nil {
			unavailable(t, tool+" is missing")
		}
	}
}

func unavailable(t testing.TB, reason string) {
	t.Helper()
	message := "tests against a real Apache Kafka cannot run: " + reason +
		" (on Debian: apt-get install openjdk-17-jre-headless maven; Maven Central must be reachable once)"
	if os.Getenv(requireVariable) == "1" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// install returns the folder of Kafka's jars and fills it if it is not there. Test packages run in parallel processes, so
// one fills it under a lock and by renaming: the folder is whole or absent.
func install(ctx context.Context, version string) (string, error) {
	home, err := homeDir(version)
	if err != nil {
		return "", err
	}
	parent := filepath.Dir(home)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(home + ".lock")
	if err != nil {
		return "", fmt.Errorf("lock %s: %w", home, err)
	}
	defer unlock()
	if _, err := os.Stat(home); err == nil {
		return home, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	return home, download(ctx, home, version)
}

func homeDir(version string) (string, error) {
	home := os.Getenv(homeVariable)
	if home == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		home = filepath.Join(cache, "ncs-relay")
	}
	return filepath.Abs(filepath.Join(home, "kafka-"+version))
}

func download(ctx context.Context, home, version string) error {
	temp, err := os.MkdirTemp(filepath.Dir(home), filepath.Base(home)+".part-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	pomFile := filepath.Join(temp, "pom.xml")
	if err := os.WriteFile(pomFile, pom, 0o644); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	mvn := exec.CommandContext(ctx, "mvn", "-B", "-q", "-f", pomFile, "dependency:copy-dependencies",
		"-Dkafka.version="+version, "-DoutputDirectory="+filepath.Join(temp, "jars"))
	if output, err := mvn.CombinedOutput(); err != nil {
		return fmt.Errorf("mvn dependency:copy-dependencies: %w\n%s", err, bytes.TrimSpace(output))
	}
	return os.Rename(filepath.Join(temp, "jars"), home)
}
