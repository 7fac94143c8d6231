package delivery

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"gotest.tools/v3/assert"
	"k8s.io/apimachinery/pkg/api/resource"
)

const mebibyte = 1 << 20

// proxyConfig is what these tests need to know of config.toml.
type proxyConfig struct {
	Proxy struct {
		ListenAddr       string `toml:"listen_addr"`
		UpstreamURL      string `toml:"upstream_url"`
		MaxConnections   int64  `toml:"max_connections"`
		MaxBodyBytes     int64  `toml:"max_body_bytes"`
		MaxBufferedBytes int64  `toml:"max_buffered_bytes"`
		DrainTimeoutSecs int64  `toml:"drain_timeout_secs"`
	} `toml:"proxy"`
}

func configOf(t *testing.T, m manifests) proxyConfig {
	t.Helper()
	var config proxyConfig
	assert.NilError(t, toml.Unmarshal([]byte(m.config.Data["config.toml"]), &config))
	return config
}

// The pod starts with exactly these arguments and this file, so the binary must take them.
func TestTheBinaryAcceptsItsConfiguration(t *testing.T) {
	m := rendered(t)
	assert.DeepEqual(t, m.container().Args, []string{"--config=" + m.container().VolumeMounts[0].MountPath + "/config.toml"})
	assert.Equal(t, len(m.container().Command), 0, "the image's entrypoint is the command")

	file := filepath.Join(t.TempDir(), "config.toml")
	assert.NilError(t, os.WriteFile(file, []byte(m.config.Data["config.toml"]), 0o600))
	assert.NilError(t, checkConfig(file))

	config := configOf(t, m)
	assert.Equal(t, config.Proxy.ListenAddr, fmt.Sprintf(":%d", m.container().Ports[0].ContainerPort))
	assert.Equal(t, config.Proxy.UpstreamURL, "https://"+upstreamName)
}

// checkConfig asks the binary itself.
func checkConfig(file string) error {
	bin, err := hostBinary()
	if err != nil {
		return err
	}
	output, err := exec.Command(bin, "--check", "--config", file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("k8s/config.toml: the proxy would not start with it: %w\n%s", err, output)
	}
	if strings.Contains(string(output), `"level":"WARN"`) {
		return fmt.Errorf("k8s/config.toml: the proxy warns about it: %s", output)
	}
	return nil
}

// preStop and drain share the pod's grace period; what is left over is for aborting, logging and exiting.
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

// The comment in deployment.yaml is the sum that a reader sees, so it is the sum that is checked: against config.toml, against
// the fields beside it, and line by line.
func TestMemoryLimitCoversWhatTheConfigurationAllows(t *testing.T) {
	m := rendered(t)
	config := configOf(t, m).Proxy
	source, err := os.ReadFile(filepath.Join(repository, "k8s", "deployment.yaml"))
	assert.NilError(t, err)
	line := func(words string) int64 {
		t.Helper()
		found := regexp.MustCompile(`(?m)^\s*#\s+(\d+)\s+` + regexp.QuoteMeta(words)).FindSubmatch(source)
		assert.Assert(t, found != nil, "no line about %q in the sum", words)
		value, err := strconv.ParseInt(string(found[1]), 10, 64)
		assert.NilError(t, err)
		return value
	}
	roundUp := func(bytes int64) int64 { return int64(math.Ceil(float64(bytes) / mebibyte)) }

	bodies, streams, runtime := line("request bodies"), line("streams"), line("the Go runtime")
	const correct = "do the sum in k8s/deployment.yaml anew, and change GOMEMLIMIT and the memory limit with it"
	assert.Equal(t, bodies, roundUp(2*config.MaxBufferedBytes), "request bodies: twice max_buffered_bytes; "+correct)
	assert.Equal(t, streams, roundUp(config.MaxConnections*64<<10), "streams: max_connections at 64 KiB; "+correct)
	assert.Equal(t, line("so GOMEMLIMIT is"), bodies+streams+runtime, correct)

	goMemLimit := goMemLimit(t, m)
	assert.Assert(t, goMemLimit >= (bodies+streams+runtime)*mebibyte, "GOMEMLIMIT is below what the configuration allows")
	limit := m.container().Resources.Limits.Memory().Value()
	assert.Equal(t, limit, line("the limit")*mebibyte)
	assert.Assert(t, goMemLimit+line("what Go does not count")*mebibyte <= limit, "the kernel would kill before the collector works harder")
	assert.Equal(t, m.container().Resources.Requests.Memory().Value(), limit)
	_, throttled := m.container().Resources.Limits["cpu"]
	assert.Assert(t, !throttled, "a CPU limit delays every event of every stream")
	assert.Assert(t, config.MaxBodyBytes <= config.MaxBufferedBytes)
}

// goMemLimit reads Go's notation (224MiB), which is Kubernetes' (224Mi) and a B.
func goMemLimit(t *testing.T, m manifests) int64 {
	t.Helper()
	for _, variable := range m.container().Env {
		if variable.Name == "GOMEMLIMIT" {
			number, found := strings.CutSuffix(variable.Value, "B")
			assert.Assert(t, found, "GOMEMLIMIT=%s has no unit that Go knows", variable.Value)
			quantity, err := resource.ParseQuantity(number)
			assert.NilError(t, err)
			return quantity.Value()
		}
	}
	t.Fatal("the container has no GOMEMLIMIT: the collector would let the heap grow past the memory limit")
	return 0
}
