// Package bench compares the proxy's cost with its alternatives: nginx, HAProxy, Caddy and a dozen lines of Go.
// `just bench` runs it in rounds and lets benchstat summarise them.
//
// Each contender runs in turn, in a fresh process, between the same clients and the same stand-in for the API. The contender has the
// last CPU to itself. Clients and stand-in run in this process, on the other CPUs. CPU time is what the kernel counts for the
// contender's processes, and memory is their proportional set size. One run of a benchmark takes one sample of every contender, so a
// change on the machine affects all of them. A benchmark fails if the received bytes differ from the sent ones.
//
// The contenders' configurations are in this folder. The benchmarks need Linux and two CPUs. They skip programs that are not
// installed (Debian: nginx-light, haproxy, caddy).
package bench

import (
	"crypto/tls"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/distance"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

var (
	ours     string // the proxy's binary
	self     string // this program, for the bare ReverseProxy
	proxyCPU int
)

// size says how much to measure.
type size struct {
	streams        []int // that events go to
	events, small  int
	warmed, opened int // streams
	uploads, far   int
	silence        time.Duration // before the memory of idle streams is read
}

var (
	sizes = size{[]int{100, 1000}, 10_000, 5_000, 100, 1000, 64, 3, 2 * time.Second}
	quick = flag.Bool("quick", false, "measure only a little, to check that every benchmark works")
)

// question is the body of small requests.
var question = slices.Repeat([]byte("hello, how are you? "), 2048/20)

// Every benchmark reports a plausible figure for the contenders that need no installation.
func TestQuickly(t *testing.T) {
	run := exec.Command(self, "-quick", "-test.bench", "Benchmark//proxy=("+bareName+"|ours|direct)", "-test.run", "^$", "-test.benchtime", "1x")
	out, err := run.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	rows := regexp.MustCompile(`(?m)^Benchmark(\w+)/\S+/proxy=\S+\s+1\s(.*)$`).FindAllStringSubmatch(string(out), -1)
	assert.Equal(t, len(rows), 2*6+3*6*2, "%s", out)
	for _, row := range rows {
		for figure := range strings.SplitSeq(strings.TrimSpace(row[2]), "\t") {
			number, unit, _ := strings.Cut(strings.TrimSpace(figure), " ")
			value, err := strconv.ParseFloat(number, 64)
			assert.NilError(t, err, row[0])
			least := 1.0
			if far, err := time.ParseDuration(strings.TrimPrefix(row[1], "Far")); err == nil {
				least = float64(far) // no answer can arrive sooner
			}
			// With so few streams a proxy's memory may even shrink.
			assert.Check(t, value >= least || unit == "idle-B/op", "%s", row[0])
		}
	}
}

// TestMain runs a bare ReverseProxy when a benchmark has started this binary for that.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == bareName {
		fmt.Fprintln(os.Stderr, serveBare(os.Args[2], os.Args[3], os.Args[4]))
		os.Exit(1)
	}
	flag.Parse()
	if *quick {
		sizes = size{[]int{10}, 100, 100, 5, 20, 4, 1, time.Millisecond}
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "bench-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		ours = filepath.Join(dir, "anthropic-oauth-proxy")
		if err := binary.Build(ours); err != nil {
			panic(err)
		}
		if self, err = os.Executable(); err != nil {
			panic(err)
		}
		if proxyCPU, err = leaveLastCPU(); err != nil {
			panic(err)
		}
		return m.Run()
	}())
}

// leaveLastCPU moves all threads of this process off its last CPU, if it has several, and returns that CPU.
func leaveLastCPU() (last int, err error) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return 0, err
	}
	for cpu := range len(all) * strconv.IntSize {
		if all.IsSet(cpu) {
			last = cpu
		}
	}
	if all.Count() == 1 {
		return last, nil
	}
	all.Clear(last)
	for range 2 { // a thread that started during the first pass may have inherited the old CPU set
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return 0, err
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil {
				return 0, err
			}
			if err := unix.SchedSetaffinity(id, &all); err != nil && err != unix.ESRCH {
				return 0, err
			}
		}
	}
	return last, nil
}

// rig is one contender between a client and a stand-in.
type rig struct {
	*testing.B
	up     *standin.Server
	client *client.Client
	pid    int            // 0: no proxy
	took   time.Duration  // until it was ready
	group  *binary.Cgroup // nil: this process may not make one
}

// newRig starts a contender, with a stand-in at the given distance, until the end of the benchmark.
func newRig(b *testing.B, c contender, far time.Duration, o standin.Options) *rig {
	b.Helper()
	b.ReportMetric(0, "ns/op") // hide it: each benchmark reports its own units
	o.CAFile, o.Streams = filepath.Join(b.TempDir(), "ca.pem"), 10_000
	up, err := standin.Start(o)
	assert.NilError(b, err)
	b.Cleanup(func() { assert.Check(b, up.Close()) })
	r := &rig{B: b, up: up}
	addr := up.Addr()
	if far > 0 {
		relay, err := distance.NewRelay(addr, far)
		assert.NilError(b, err)
		b.Cleanup(func() { relay.Close() })
		addr = relay.Addr()
	}
	if group, err := binary.NewCgroup(4 << 30); err == nil {
		b.Cleanup(group.Remove)
		r.group = group
	}
	if c.name == direct {
		r.client = client.New("https://" + addr)
		r.client.Flags += "," + standin.OAuthFlag
		r.client.Transport.TLSClientConfig = &tls.Config{RootCAs: up.CA.Pool(), ServerName: "localhost", NextProtos: []string{"http/1.1"}}
	} else {
		r.pid, addr, r.took = c.start(b, place{Upstream: addr, CA: up.CAFile, Far: far > 0}, r.group)
		r.client = client.New("http://" + addr)
	}
	b.Cleanup(r.client.Close)
	return r
}

// ask makes n small requests, sixteen at a time.
func (r *rig) ask(n int) {
	r.Helper()
	var group errgroup.Group
	group.SetLimit(16)
	for range n {
		group.Go(func() error { return r.client.Ask(r.Context(), standin.Part{Size: 300}, question) })
	}
	assert.NilError(r, group.Wait())
}

// open opens n streams, so many at a time, each on its own connection, and reads the first event of each. One at a time, they are in the
// order that Tick has.
func (r *rig) open(n, atOnce int) []*client.Stream {
	r.Helper()
	streams := make([]*client.Stream, n)
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i := range streams {
		group.Go(func() error {
			s, err := r.client.Open(r.Context(), standin.Part{Paced: true, Text: 13}, question)
			if err != nil {
				return err
			}
			r.Cleanup(s.Close)
			streams[i] = s
			_, _, err = s.Next()
			return err
		})
	}
	assert.NilError(r, group.Wait())
	return streams
}

// cpu returns the CPU time that the proxy has used so far, or 0 without a proxy.
func (r *rig) cpu() time.Duration {
	r.Helper()
	if r.pid == 0 {
		return 0
	}
	used, err := binary.CPU(r.pid)
	assert.NilError(r, err)
	return used
}

func (r *rig) memory() int64 {
	r.Helper()
	bytes, err := binary.Memory(r.pid)
	assert.NilError(r, err)
	return bytes
}

// reportEach divides a total by n and reports it in the given unit.
func (r *rig) reportEach(total float64, n int, unit string) { r.ReportMetric(total/float64(n), unit) }
