package delivery

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"gotest.tools/v3/assert"
)

// proxyConfig is the part of config.toml that these tests need.
type proxyConfig struct {
	Proxy struct {
		ListenAddr       string `toml:"listen_addr"`
		UpstreamURL      string `toml:"upstream_url"`
		DrainTimeoutSecs int64  `toml:"drain_timeout_secs"`
	} `toml:"proxy"`
}

func configOf(t *testing.T, m manifests) proxyConfig {
	t.Helper()
	var config proxyConfig
	assert.NilError(t, toml.Unmarshal([]byte(m.config.Data["config.toml"]), &config))
	return config
}

// The pod starts with exactly these arguments and this file, so the binary must accept them.
func TestTheBinaryAcceptsItsConfiguration(t *testing.T) {
	m := rendered(t)
	assert.DeepEqual(t, m.container().Args, []string{"--config=" + m.container().VolumeMounts[0].MountPath + "/config.toml"})
	assert.Equal(t, len(m.container().Command), 0, "the image's entrypoint is the command")

	file := filepath.Join(t.TempDir(), "config.toml")
	assert.NilError(t, os.WriteFile(file, []byte(m.config.Data["config.toml"]), 0o600))
	output, err := exec.Command("go", "run", "-C", repository, "./"+command, "--check", "--config", file).CombinedOutput()
	assert.NilError(t, err, "the proxy would not start with k8s/config.toml: %s", output)
	assert.Assert(t, !strings.Contains(string(output), "WARN"), "the proxy warns about k8s/config.toml: %s", output)

	config := configOf(t, m)
	assert.Equal(t, config.Proxy.ListenAddr, fmt.Sprintf(":%d", m.container().Ports[0].ContainerPort))
	assert.Equal(t, config.Proxy.UpstreamURL, "https://"+upstreamName)
}

// preStop and drain share the pod's grace period. The rest of it is for aborting, logging and exiting.
func TestGracePeriodCoversPreStopAndDrain(t *testing.T) {
	m := rendered(t)
	preStop := m.container().Lifecycle.PreStop.Sleep.Seconds
	drain := configOf(t, m).Proxy.DrainTimeoutSecs
	grace := *m.pod().Spec.TerminationGracePeriodSeconds
	assert.Equal(t, preStop, int64(10), "preStop: the time it takes until no new connection arrives")
	assert.Equal(t, drain, int64(600), "drain_timeout_secs in k8s/config.toml: a deploy must not cut an answer that runs for minutes")
	assert.Equal(t, grace, preStop+drain+20, "terminationGracePeriodSeconds must be preStop + drain_timeout_secs + 20, "+
		"else the kubelet kills the pod in the middle of its drain")
	hang := *m.container().LivenessProbe.TerminationGracePeriodSeconds
	assert.Assert(t, preStop < hang && hang < grace, "preStop counts against the probe's grace period too")
}

// e2e/hostile tests how much the memory limit must be.
func TestMemoryIsReservedAndTheCPUIsNotLimited(t *testing.T) {
	resources := rendered(t).container().Resources
	assert.Equal(t, resources.Requests.Memory().Value(), resources.Limits.Memory().Value(), "the request must equal the limit, so that a node short of memory evicts other pods first")
	_, throttled := resources.Limits["cpu"]
	assert.Assert(t, !throttled, "a CPU limit delays every event of every stream")
}
