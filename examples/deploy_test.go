package examples_test

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"ncs-relay/config"
	"ncs-relay/relay/telemetry"
	"ncs-relay/sinks"
	"ncs-relay/sinks/filesink"
	"ncs-relay/sinks/kafkasink"
)

// strictly reads a YAML document; a key that is not in the struct is a mistake.
func strictly(t *testing.T, text []byte, into any) {
	t.Helper()
	require.NoError(t, yaml.UnmarshalWithOptions(text, into, yaml.Strict()), string(text))
}

// requireShutdownFits checks that whoever kills waits for the end of a shutdown.
func requireShutdownFits(t *testing.T, cfg *config.Config, patience time.Duration) {
	t.Helper()
	telemetry := 3 * time.Second // what the last spans get, after shutdown.timeout
	require.Greater(t, patience, cfg.Shutdown.Delay+cfg.Shutdown.Timeout+telemetry)
}

// image is what the Dockerfile says.
type image struct {
	user, volume, entrypoint string
	environment              []string
}

func readImage(t *testing.T) image {
	text, err := os.ReadFile("../Dockerfile")
	require.NoError(t, err)
	last := func(instruction string) string {
		found := regexp.MustCompile(`(?m)^`+instruction+` (.*)$`).FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, found, instruction)
		return found[len(found)-1][1]
	}
	require.Contains(t, string(text), "--chown=65532:65532 /out/data "+last("VOLUME"))
	require.Contains(t, last("CMD"), `"/etc/ncs-relay/relay.yaml"`)
	return image{user: last("USER"), volume: last("VOLUME"), entrypoint: last("ENTRYPOINT"), environment: strings.Fields(last("ENV"))}
}

// requireBelow checks that what a relay writes lies below the volume.
func requireBelow(t *testing.T, cfg *config.Config, volume string) {
	t.Helper()
	require.Equal(t, volume, filepath.Dir(cfg.DataDir), "not the top of a volume, which may hold lost+found")
	for _, s := range cfg.Sinks {
		if file, ok := s.Kind.(*filesink.Config); ok {
			require.True(t, strings.HasPrefix(file.Path, volume+"/"), file.Path)
		}
	}
}

type composeFile struct {
	Services map[string]*composeService
	Volumes  map[string]struct{}
}

type composeService struct {
	Build *struct {
		Context string
		Args    map[string]string
	}
	Image       string
	ReadOnly    bool `yaml:"read_only"`
	Environment map[string]string
	Ports       []string
	Volumes     []string
	Ulimits     struct{ Nofile int }
	Healthcheck *struct {
		Test              []string
		Interval, Timeout time.Duration
		StartPeriod       time.Duration `yaml:"start_period"`
	}
	StopGracePeriod time.Duration `yaml:"stop_grace_period"`
	Restart         string
}

func TestComposeFitsTheProgram(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("compose/compose.yaml")
	require.NoError(t, err)
	var compose composeFile
	strictly(t, text, &compose)
	require.Equal(t, []string{"grafana", "jaeger", "kafka", "prometheus", "relay"}, slices.Sorted(maps.Keys(compose.Services)))
	published := map[string]string{}
	used := map[string]bool{}
	for name, s := range compose.Services {
		require.Regexp(t, `:[\w.]+$`, s.Image, "%s: without a version", name)
		for _, port := range s.Ports {
			parts := strings.Split(port, ":")
			outside := parts[len(parts)-2]
			require.Empty(t, published[outside], "port %s is published twice", outside)
			published[outside] = name
			require.True(t, len(parts) == 3 && parts[0] == "127.0.0.1" || port == "8080:8080", "%s: %s is open to the network", name, port)
		}
		for _, volume := range s.Volumes {
			source, rest, _ := strings.Cut(volume, ":")
			if !strings.HasPrefix(source, ".") {
				require.Contains(t, compose.Volumes, source)
				used[source] = true
				continue
			}
			_, err := os.Stat(filepath.Join("compose", source))
			require.NoError(t, err, "%s mounts what is not there; Docker would make a directory", name)
			require.True(t, strings.HasSuffix(rest, ":ro"), volume)
		}
	}
	require.Len(t, used, len(compose.Volumes), "volumes that nobody uses")

	relay, image := compose.Services["relay"], readImage(t)
	require.FileExists(t, filepath.Join("compose", relay.Build.Context, "Dockerfile"))
	require.Equal(t, []string{"CMD", "/ncs-relay", "health"}, relay.Healthcheck.Test)
	require.Equal(t, `["`+relay.Healthcheck.Test[1]+`"]`, image.entrypoint)
	require.True(t, relay.ReadOnly)
	require.Contains(t, relay.Volumes, "journal:"+image.volume)
	require.Contains(t, relay.Volumes, "./relay:/etc/ncs-relay:ro", "a directory: a file would be bound by its inode")

	environment := append([]string{}, image.environment...)
	for name, value := range relay.Environment {
		if m := regexp.MustCompile(`^\$\{(\w+):\?.+\}$`).FindStringSubmatch(value); m != nil {
			require.Equal(t, name, m[1])
			value = "one-secret-of-" + name
		}
		environment = append(environment, name+"="+value)
	}
	cfg, report := config.Load("compose/relay/relay.yaml", lookup(environment), sinks.Kinds)
	require.Empty(t, report.String())
	written, err := os.ReadFile("compose/relay/relay.yaml")
	require.NoError(t, err)
	requireVariables(t, string(written), environment)
	require.Empty(t, telemetry.Warnings(func(name string) string { value, _ := lookup(environment)(name); return value }))
	requireShutdownFits(t, cfg, relay.StopGracePeriod)
	requireBelow(t, cfg, image.volume)
	require.GreaterOrEqual(t, relay.Ulimits.Nofile, cfg.Limits.Connections+1024)
	require.Equal(t, ":8080", cfg.Listen)
	require.Equal(t, ":9464", cfg.Admin.Listen)
	require.True(t, cfg.Admin.HasToken())

	require.Equal(t, "jaeger", hostOf(t, relay.Environment["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]))
	kafka := compose.Services["kafka"].Environment
	for _, s := range cfg.Sinks {
		if sink, ok := s.Kind.(*kafkasink.Config); ok {
			require.Contains(t, kafka["KAFKA_ADVERTISED_LISTENERS"], "INSIDE://"+sink.Brokers[0])
		}
	}
	for _, listener := range strings.Split(kafka["KAFKA_LISTENERS"], ",") {
		name, _, _ := strings.Cut(listener, ":")
		require.Contains(t, kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"], name+":PLAINTEXT")
	}
	require.Contains(t, compose.Services["kafka"].Volumes, "kafka:"+kafka["KAFKA_LOG_DIRS"])
}

func hostOf(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	return u.Hostname()
}

// requireVariables checks that a configuration's variables are set, those with a default as well.
func requireVariables(t *testing.T, text string, environment []string) {
	t.Helper()
	for _, m := range regexp.MustCompile(`\$\{(\w+)`).FindAllStringSubmatch(text, -1) {
		_, set := lookup(environment)(m[1])
		require.True(t, set, "%s is not set", m[1])
	}
}

func TestComposeObservesTheRelay(t *testing.T) {
	t.Parallel()
	type scrapes struct {
		Global map[string]string
		Rules  []string `yaml:"rule_files"`
		Jobs   []struct {
			Name   string                       `yaml:"job_name"`
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	var here, usual scrapes
	for file, into := range map[string]*scrapes{"compose/prometheus.yml": &here, "observability/prometheus.yml": &usual} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		strictly(t, text, into)
	}
	require.Equal(t, []string{"relay:9464"}, here.Jobs[0].Static[0].Targets)
	here.Jobs[0].Static = usual.Jobs[0].Static
	require.Equal(t, usual, here, "differs from the usual one in its targets only")

	text, err := os.ReadFile("compose/grafana/datasources.yml")
	require.NoError(t, err)
	var provisioned struct {
		APIVersion  int `yaml:"apiVersion"`
		Datasources []struct {
			Name, Type, URL string
			IsDefault       bool              `yaml:"isDefault"`
			JSONData        map[string]string `yaml:"jsonData"`
		}
	}
	strictly(t, text, &provisioned)
	require.Equal(t, here.Global["scrape_interval"], provisioned.Datasources[0].JSONData["timeInterval"])
	var hosts []string
	for _, d := range provisioned.Datasources {
		hosts = append(hosts, hostOf(t, d.URL))
	}
	require.Equal(t, []string{"prometheus", "jaeger"}, hosts)
}

// The parts of Kubernetes' objects that the example uses; another key is a mistake.
type (
	labels   map[string]string
	selector struct {
		MatchLabels labels `yaml:"matchLabels"`
	}
	Object struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct {
			Name   string
			Labels labels
		}
	}
	probe struct {
		HTTPGet          struct{ Path, Port string } `yaml:"httpGet"`
		PeriodSeconds    int                         `yaml:"periodSeconds"`
		TimeoutSeconds   int                         `yaml:"timeoutSeconds"`
		FailureThreshold int                         `yaml:"failureThreshold"`
	}
	keyRef    struct{ Name, Key string }
	container struct {
		Name, Image string
		Env         []struct {
			Name, Value string
			ValueFrom   struct {
				SecretKeyRef *keyRef `yaml:"secretKeyRef"`
				FieldRef     *struct {
					FieldPath string `yaml:"fieldPath"`
				} `yaml:"fieldRef"`
			} `yaml:"valueFrom"`
		}
		Ports []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		ReadinessProbe  probe `yaml:"readinessProbe"`
		LivenessProbe   probe `yaml:"livenessProbe"`
		Resources       struct{ Requests, Limits map[string]string }
		SecurityContext struct {
			AllowPrivilegeEscalation bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop []string }
		} `yaml:"securityContext"`
		VolumeMounts []struct {
			Name      string
			MountPath string `yaml:"mountPath"`
			ReadOnly  bool   `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	PodSpec struct {
		GracePeriod        int  `yaml:"terminationGracePeriodSeconds"`
		AutomountToken     bool `yaml:"automountServiceAccountToken"`
		EnableServiceLinks bool `yaml:"enableServiceLinks"`
		SecurityContext    struct {
			RunAsNonRoot        bool                  `yaml:"runAsNonRoot"`
			RunAsUser           int                   `yaml:"runAsUser"`
			RunAsGroup          int                   `yaml:"runAsGroup"`
			FSGroup             int                   `yaml:"fsGroup"`
			FSGroupChangePolicy string                `yaml:"fsGroupChangePolicy"`
			SeccompProfile      struct{ Type string } `yaml:"seccompProfile"`
		} `yaml:"securityContext"`
		Containers []container
		Volumes    []struct {
			Name      string
			ConfigMap *struct{ Name string } `yaml:"configMap"`
			Secret    *struct {
				SecretName  string `yaml:"secretName"`
				DefaultMode int    `yaml:"defaultMode"`
			}
		}
	}
	statefulSet struct {
		Object `yaml:",inline"`
		Spec   struct {
			ServiceName string `yaml:"serviceName"`
			Replicas    int
			Selector    selector
			Template    struct {
				Metadata struct{ Labels labels }
				Spec     PodSpec
			}
			VolumeClaimTemplates []struct {
				Metadata struct{ Name string }
				Spec     struct {
					AccessModes []string `yaml:"accessModes"`
					Resources   struct{ Requests map[string]string }
				}
			} `yaml:"volumeClaimTemplates"`
		}
	}
	configMap struct {
		Object `yaml:",inline"`
		Data   map[string]string
	}
	secret struct {
		Object     `yaml:",inline"`
		StringData map[string]string `yaml:"stringData"`
	}
	service struct {
		Object `yaml:",inline"`
		Spec   struct {
			ClusterIP       string `yaml:"clusterIP"`
			PublishNotReady bool   `yaml:"publishNotReadyAddresses"`
			Selector        labels
			Ports           []struct {
				Name       string
				Port       int
				TargetPort string `yaml:"targetPort"`
			}
		}
	}
	serviceMonitor struct {
		Object `yaml:",inline"`
		Spec   struct {
			JobLabel  string `yaml:"jobLabel"`
			Selector  selector
			Endpoints []struct{ Port, Path, Interval string }
		}
	}
	peer struct {
		NamespaceSelector selector `yaml:"namespaceSelector"`
	}
	policyPort    struct{ Protocol, Port string }
	networkPolicy struct {
		Object `yaml:",inline"`
		Spec   struct {
			PodSelector selector `yaml:"podSelector"`
			PolicyTypes []string `yaml:"policyTypes"`
			Ingress     []struct {
				From  []peer
				Ports []policyPort
			}
			Egress []struct {
				To    []peer
				Ports []policyPort
			}
		}
	}
)

// manifests are the example for Kubernetes.
type manifests struct {
	set      statefulSet
	config   configMap
	secret   secret
	monitor  serviceMonitor
	policy   networkPolicy
	services map[string]service
}

func readManifests(t *testing.T) (m manifests) {
	m.services = map[string]service{}
	files, err := filepath.Glob("kubernetes/*.yaml")
	require.NoError(t, err)
	kinds := map[string]any{"apps/v1 StatefulSet": &m.set, "v1 ConfigMap": &m.config, "v1 Secret": &m.secret,
		"monitoring.coreos.com/v1 ServiceMonitor": &m.monitor, "networking.k8s.io/v1 NetworkPolicy": &m.policy}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			var o Object
			require.NoError(t, yaml.Unmarshal([]byte(document), &o), file)
			require.NotEmpty(t, o.Metadata.Name, file)
			if o.Kind == "Service" {
				var s service
				strictly(t, []byte(document), &s)
				m.services[o.Metadata.Name] = s
				continue
			}
			kind := o.APIVersion + " " + o.Kind
			require.Contains(t, kinds, kind, "twice, or not known")
			strictly(t, []byte(document), kinds[kind])
			delete(kinds, kind)
		}
	}
	require.Empty(t, kinds)
	return m
}

func (l labels) covers(t *testing.T, of labels) {
	t.Helper()
	require.NotEmpty(t, l, "selects everything")
	for key, value := range l {
		require.Equal(t, value, of[key], key)
	}
}

func TestKubernetesManifestsFitTogether(t *testing.T) {
	t.Parallel()
	m := readManifests(t)
	pod := m.set.Spec.Template
	m.set.Spec.Selector.MatchLabels.covers(t, pod.Metadata.Labels)
	m.policy.Spec.PodSelector.MatchLabels.covers(t, pod.Metadata.Labels)
	require.Equal(t, 1, m.set.Spec.Replicas)

	c := pod.Spec.Containers[0]
	ports := map[string]int{}
	for _, p := range c.Ports {
		ports[p.Name] = p.ContainerPort
	}
	for name, s := range m.services {
		s.Spec.Selector.covers(t, pod.Metadata.Labels)
		for _, p := range s.Spec.Ports {
			require.Contains(t, ports, p.TargetPort, name)
		}
	}
	admin := m.services[m.set.Spec.ServiceName]
	require.Equal(t, "None", admin.Spec.ClusterIP, "a StatefulSet's service is headless")
	require.True(t, admin.Spec.PublishNotReady)
	monitored := 0
	for _, s := range m.services {
		matches := true
		for key, value := range m.monitor.Spec.Selector.MatchLabels {
			matches = matches && s.Metadata.Labels[key] == value
		}
		if matches {
			monitored++
			require.Equal(t, m.monitor.Spec.Endpoints[0].Port, s.Spec.Ports[0].Name)
			alerts, err := os.ReadFile("observability/alerts.yml")
			require.NoError(t, err)
			require.Contains(t, string(alerts), `up{job="`+s.Metadata.Labels[m.monitor.Spec.JobLabel]+`"}`)
		}
	}
	require.Equal(t, 1, monitored, "services that the monitor selects")
	require.Equal(t, "/metrics", m.monitor.Spec.Endpoints[0].Path)
	for _, rule := range m.policy.Spec.Ingress {
		require.Contains(t, ports, rule.Ports[0].Port)
	}
	require.Equal(t, "/readyz", c.ReadinessProbe.HTTPGet.Path)
	require.Equal(t, "/livez", c.LivenessProbe.HTTPGet.Path)
	for _, p := range []probe{c.ReadinessProbe, c.LivenessProbe} {
		require.Equal(t, "admin", p.HTTPGet.Port)
	}

	defined := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		defined[v.Name] = true
		if v.ConfigMap != nil {
			require.Equal(t, m.config.Metadata.Name, v.ConfigMap.Name)
		}
		if v.Secret != nil {
			require.Equal(t, m.secret.Metadata.Name, v.Secret.SecretName)
			require.Equal(t, 0o440, v.Secret.DefaultMode)
		}
	}
	for _, v := range m.set.Spec.VolumeClaimTemplates {
		defined[v.Metadata.Name] = true
	}
	for _, mount := range c.VolumeMounts {
		require.True(t, defined[mount.Name], mount.Name)
		delete(defined, mount.Name)
	}
	require.Empty(t, defined, "not mounted")
}

func TestKubernetesRunsTheConfigurationInTheManifests(t *testing.T) {
	t.Parallel()
	m, image := readManifests(t), readImage(t)
	pod := m.set.Spec.Template.Spec
	c := pod.Containers[0]
	mounted := map[string]string{}
	for _, mount := range c.VolumeMounts {
		mounted[mount.Name] = mount.MountPath
	}
	require.Equal(t, map[string]string{"config": "/etc/ncs-relay", "secrets": "/etc/ncs-relay-secrets", "data": image.volume}, mounted)
	user := fmt.Sprintf("%d:%d", pod.SecurityContext.RunAsUser, pod.SecurityContext.RunAsGroup)
	require.Equal(t, image.user, user)
	require.Equal(t, pod.SecurityContext.RunAsGroup, pod.SecurityContext.FSGroup)
	require.True(t, pod.SecurityContext.RunAsNonRoot && c.SecurityContext.ReadOnlyRootFilesystem && !c.SecurityContext.AllowPrivilegeEscalation)

	// The pod's files, laid out elsewhere.
	dir := t.TempDir()
	environment := append([]string{}, image.environment...)
	for _, e := range c.Env {
		if ref := e.ValueFrom.SecretKeyRef; ref != nil {
			require.Equal(t, m.secret.Metadata.Name, ref.Name)
			require.Contains(t, m.secret.StringData, ref.Key)
			e.Value = m.secret.StringData[ref.Key]
		}
		if e.Name == "NCS_SECRETS_DIR" {
			require.Equal(t, mounted["secrets"], e.Value)
			e.Value = dir
		}
		environment = append(environment, e.Name+"="+e.Value)
	}
	for key, value := range m.secret.StringData {
		require.NoError(t, os.WriteFile(filepath.Join(dir, key), []byte(value), 0o440))
	}
	text := m.config.Data["relay.yaml"]
	cfg, report := config.Parse("relay.yaml", []byte(text), dir, lookup(environment), sinks.Kinds)
	require.Empty(t, report.String())
	requireVariables(t, text, environment)
	requireBelow(t, cfg, image.volume)
	requireShutdownFits(t, cfg, time.Duration(pod.GracePeriod)*time.Second)
	for _, p := range c.Ports {
		address := map[string]string{"http": cfg.Listen, "admin": cfg.Admin.Listen}[p.Name]
		host, port, err := net.SplitHostPort(address)
		require.NoError(t, err)
		require.Empty(t, host, "%s: loopback of the pod is out of reach", p.Name)
		require.Equal(t, fmt.Sprint(p.ContainerPort), port)
	}
	require.True(t, cfg.Admin.HasToken(), "off loopback /api/ needs a token")

	var gibibytes int64
	_, err := fmt.Sscanf(m.set.Spec.VolumeClaimTemplates[0].Spec.Resources.Requests["storage"], "%dGi", &gibibytes)
	require.NoError(t, err)
	require.Greater(t, gibibytes<<30, cfg.Journal.MaxSize+cfg.DeadLetters.MaxSize+256<<20+1<<30, "journal, dead letters, trail, min_free")
	require.Equal(t, "1Gi", c.Resources.Limits["memory"])
	require.Contains(t, environment, "GOMEMLIMIT=900MiB", "below the limit of memory")
}
