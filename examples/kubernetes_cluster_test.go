package examples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/config"
	"ncs-relay/sinks"
)

// The parts of Kubernetes' objects that the example of several replicas uses besides those of one.
type (
	deployment struct {
		Object `yaml:",inline"`
		Spec   struct {
			Replicas int
			Strategy struct {
				Type          string
				RollingUpdate struct {
					MaxSurge       int `yaml:"maxSurge"`
					MaxUnavailable int `yaml:"maxUnavailable"`
				} `yaml:"rollingUpdate"`
			}
			MinReadySeconds int `yaml:"minReadySeconds"`
			Selector        selector
			Template        struct {
				Metadata struct{ Labels labels }
				Spec     struct {
					PodSpec      `yaml:",inline"`
					Constraints  []spread `yaml:"topologySpreadConstraints"`
					NodeAffinity struct {
						PodAntiAffinity struct {
							Preferred []struct {
								Weight          int
								PodAffinityTerm spread `yaml:"podAffinityTerm"`
							} `yaml:"preferredDuringSchedulingIgnoredDuringExecution"`
						} `yaml:"podAntiAffinity"`
					} `yaml:"affinity"`
				}
			}
		}
	}
	spread struct {
		MaxSkew       int      `yaml:"maxSkew"`
		TopologyKey   string   `yaml:"topologyKey"`
		Otherwise     string   `yaml:"whenUnsatisfiable"`
		LabelSelector selector `yaml:"labelSelector"`
	}
	disruptionBudget struct {
		Object `yaml:",inline"`
		Spec   struct {
			MaxUnavailable int `yaml:"maxUnavailable"`
			Selector       selector
		}
	}
	among struct {
		PodSelector selector `yaml:"podSelector"`
	}
	replicaPolicy struct {
		Object `yaml:",inline"`
		Spec   struct {
			PodSelector selector `yaml:"podSelector"`
			PolicyTypes []string `yaml:"policyTypes"`
			Ingress     []struct {
				From  []among
				Ports []policyPort
			}
			Egress []struct {
				To    []among
				Ports []policyPort
			}
		}
	}
)

func TestKubernetesRunsSeveralReplicas(t *testing.T) {
	t.Parallel()
	var d deployment
	var budget disruptionBudget
	var policy replicaPolicy
	var configuration configMap
	text, err := os.ReadFile("kubernetes/cluster/deployment.yaml")
	require.NoError(t, err)
	documents := strings.Split(string(text), "\n---\n")
	require.Len(t, documents, 3)
	for i, into := range []any{&d, &budget, &policy} {
		strictly(t, []byte(documents[i]), into)
	}
	text, err = os.ReadFile("kubernetes/cluster/config.yaml")
	require.NoError(t, err)
	strictly(t, text, &configuration)
	require.Equal(t, []string{"apps/v1 Deployment", "policy/v1 PodDisruptionBudget", "networking.k8s.io/v1 NetworkPolicy"},
		[]string{d.APIVersion + " " + d.Kind, budget.APIVersion + " " + budget.Kind, policy.APIVersion + " " + policy.Kind})

	one, image := readManifests(t), readImage(t)
	pod := d.Spec.Template
	chosen := []selector{d.Spec.Selector, budget.Spec.Selector, policy.Spec.PodSelector, one.policy.Spec.PodSelector,
		policy.Spec.Ingress[0].From[0].PodSelector, policy.Spec.Egress[0].To[0].PodSelector,
		pod.Spec.Constraints[0].LabelSelector, pod.Spec.NodeAffinity.PodAntiAffinity.Preferred[0].PodAffinityTerm.LabelSelector}
	for _, s := range chosen {
		s.MatchLabels.covers(t, pod.Metadata.Labels)
	}
	for name, s := range one.services {
		s.Spec.Selector.covers(t, pod.Metadata.Labels)
		require.NotEmpty(t, s.Spec.Ports, name)
	}
	require.Equal(t, one.config.Metadata.Name, configuration.Metadata.Name, "takes the place of that of one relay")
	require.Equal(t, one.set.Spec.Template.Spec.Containers[0].Image, pod.Spec.Containers[0].Image)
	require.Less(t, budget.Spec.MaxUnavailable, d.Spec.Replicas)
	require.Zero(t, d.Spec.Strategy.RollingUpdate.MaxUnavailable)
	require.Len(t, pod.Spec.Volumes, 2, "nothing lasts in a replica")

	dir := t.TempDir()
	environment := append([]string{}, image.environment...)
	for _, e := range pod.Spec.Containers[0].Env {
		switch {
		case e.ValueFrom.SecretKeyRef != nil:
			e.Value = one.secret.StringData[e.ValueFrom.SecretKeyRef.Key]
			require.NotEmpty(t, e.Value)
		case e.ValueFrom.FieldRef != nil:
			e.Value = map[string]string{"metadata.name": "ncs-relay-7c9f-x2x4k", "status.podIP": "10.1.2.3"}[e.ValueFrom.FieldRef.FieldPath]
			require.NotEmpty(t, e.Value, e.Name)
		case e.Name == "NCS_SECRETS_DIR":
			e.Value = dir
		}
		environment = append(environment, e.Name+"="+e.Value)
	}
	for key, value := range one.secret.StringData {
		require.NoError(t, os.WriteFile(filepath.Join(dir, key), []byte(value), 0o440))
	}
	cfg, report := config.Parse("relay.yaml", []byte(configuration.Data["relay.yaml"]), dir, lookup(environment), sinks.Kinds)
	require.Empty(t, report.String())
	require.Equal(t, "ncs-relay-7c9f-x2x4k", cfg.ReplicaName())
	require.Equal(t, "10.1.2.3:9464", cfg.Admin.Advertise)
	require.True(t, cfg.Admin.HasToken())
	require.Equal(t, cfg.Journal.Kafka.CreateTopics.Replication, d.Spec.Replicas)
	const session = 10 * time.Second
	require.Greater(t, time.Duration(pod.Spec.GracePeriod)*time.Second, cfg.Shutdown.Delay+cfg.Shutdown.Timeout+session)
	require.GreaterOrEqual(t, time.Duration(d.Spec.MinReadySeconds)*time.Second, session)
}
