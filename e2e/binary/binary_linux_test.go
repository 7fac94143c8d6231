package binary

import (
	"bufio"
	"os"
	"os/exec"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestStart(t *testing.T) {
	p := Start(t, Config{Upstream: "http://127.0.0.1:1"})
	m, err := p.Metrics()
	assert.NilError(t, err)
	assert.Equal(t, m.Sum("proxy_requests_in_flight"), 0.0)
	assert.Assert(t, m.Sum("proxy_build_info") == 1, "%v", m)
	rss, err := Status(p.PID(), "VmRSS")
	assert.NilError(t, err)
	assert.Assert(t, rss > 1<<20)
	assert.ErrorContains(t, p.Well(), "still running")
	assert.NilError(t, p.End())
	assert.NilError(t, p.Well())
	assert.ErrorContains(t, p.Clean(`"state":"running"`), "must never be printed")
}

func TestLaunchFails(t *testing.T) {
	_, err := Launch(t.TempDir(), Config{Upstream: "http://127.0.0.1:1", Proxy: "retries = -1"})
	assert.ErrorContains(t, err, "without a log line with state running")
	assert.ErrorContains(t, err, "retries")
}

func TestSum(t *testing.T) {
	m, err := ParseMetrics("# HELP a x\na{b=\"c\",d=\"e\"} 1\na{b=\"c\",d=\"f\"} 2\na{bb=\"c\"} 4\nab 8\n")
	assert.NilError(t, err)
	assert.Equal(t, m.Sum("a"), 7.0)
	assert.Equal(t, m.Sum("a", `b="c"`), 3.0)
	assert.Equal(t, m.Sum("a", `b="c"`, `d="e"`), 1.0)
	_, err = ParseMetrics("nonsense\n")
	assert.Assert(t, err != nil)
}

// CPU and memory are those of all processes below the one that is named.
func TestAccountCountsDescendants(t *testing.T) {
	// The shell that works is a child of the one that is started, which only waits.
	cmd := exec.Command("sh", "-c", "exec 3<&0; (i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done; echo done; read x <&3) & wait")
	in, err := cmd.StdinPipe()
	assert.NilError(t, err)
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	defer cmd.Wait()
	defer in.Close()
	_, err = bufio.NewReader(out).ReadString('\n')
	assert.NilError(t, err)
	used, err := CPU(cmd.Process.Pid)
	assert.NilError(t, err)
	assert.Assert(t, used > 100*time.Millisecond, "%v of CPU: the waiting shell alone would not get there", used)
	memory, err := Memory(cmd.Process.Pid)
	assert.NilError(t, err)
	assert.Assert(t, memory > 0)
}
