// Soak runs the proxy for a while as its pod would: the real binary, the configuration of k8s/config.toml, and the memory
// limit and environment of k8s/deployment.yaml, with no swap to hide behind. It sends a mixed load through it, breaks things
// on the way, and knows of every single request what must come of it.
//
//	go run -C e2e ./soak -minutes 20
//
// It needs Linux, root (for the memory cgroup, version 1 or 2) and about half of one core. The load:
//
//   - streams, hundreds at a time and some of them minutes long, of numbered events; some are silent but for pings;
//   - single requests at random times (plan.go has the recipes and how often each comes): messages, uploads of 10 KB to
//     10 MiB with and without a declared length, count_tokens, GET and HEAD; slow answers and errors of the upstream;
//   - clients that leave in every phase, read slowly, or stop reading or sending;
//   - an upstream that stalls, resets before and after the headers, falls silent, answers early; that asks its clients off
//     a connection every -hangup (GOAWAY, or Connection: close) and resets one outright every -reset;
//   - every -burst more uploads than max_buffered_bytes has room for, and every -wave more streams than max_connections,
//     so that requests queue for both.
//
// A request is a plan that both of its ends know: the client asks for it by number, the upstream plays its part, and judge
// compares what came of it with what the plan wants. What the plan does not want is explained only if the upstream reset the
// connection that carried the request, and the request failed in the way the contract has for that. Everything else is
// unexplained. Besides, the proxy's own counters must agree with the clients', its log may hold nothing unforeseen, and
// when the load is over, goroutines, descriptors and held bytes must return to where they were. The report says it all; the
// exit code is 1 if anything was unexplained or has grown.
//
// The same -seed makes the same requests; how they interleave is up to the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	minutes  float64
	seed     uint64
	streams  int
	rate     float64
	protocol string
	timeout  time.Duration
	hangup   time.Duration
	reset    time.Duration
	burst    time.Duration
	wave     time.Duration
	binary   string
}

func parseFlags(args []string, stderr io.Writer) (settings, error) {
	var s settings
	set := flag.NewFlagSet("soak", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Float64Var(&s.minutes, "minutes", 20, "how long the load lasts, in `minutes`; below 10, memory under load is told, but not judged")
	set.Uint64Var(&s.seed, "seed", 1, "the `number` from which all chance comes")
	set.IntVar(&s.streams, "streams", 300, "`how many` streams are open at a time")
	set.Float64Var(&s.rate, "rate", 10, "other `requests` per second")
	set.StringVar(&s.protocol, "protocol", "h2", "what the upstream speaks, `h2 or h1`")
	set.DurationVar(&s.timeout, "timeout", 20*time.Second, "timeout_secs of the proxy, in place of config.toml's: short enough for timeouts to happen within the run")
	set.DurationVar(&s.hangup, "hangup", 30*time.Second, "how often the upstream asks its client off a connection; 0: never")
	set.DurationVar(&s.reset, "reset", 3*time.Minute, "how often the upstream resets a connection and all it carries; 0: never")
	set.DurationVar(&s.burst, "burst", 45*time.Second, "how often there are more uploads than max_buffered_bytes has room for; 0: never")
	set.DurationVar(&s.wave, "wave", 2*time.Minute, "how often there are more streams than max_connections; 0: never")
	set.StringVar(&s.binary, "binary", "", "the proxy's `file`; default: built from this tree")
	if err := set.Parse(args); err != nil {
		return s, err
	}
	switch {
	case set.NArg() > 0:
		return s, fmt.Errorf("unexpected argument %q: there are only flags, see -help", set.Arg(0))
	case s.protocol != "h2" && s.protocol != "h1":
		return s, fmt.Errorf("-protocol %s: h2 or h1", s.protocol)
	case s.timeout < time.Second || s.timeout%time.Second != 0:
		return s, fmt.Errorf("-timeout %v: whole seconds, at least one", s.timeout)
	case s.minutes < 0.1 || s.streams < 0 || s.rate <= 0:
		return s, errors.New("-minutes must be at least 0.1, -rate above 0, -streams not below")
	}
	return s, nil
}

// run is the whole soak. It returns an error if the soak could not be made, or if it found anything.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	s, err := parseFlags(args, stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root, err := repository()
	if err != nil {
		return err
	}
	pod, err := readPod(root, s.timeout)
	if err != nil {
		return err
	}
	group, err := newCgroup(pod.memory)
	if err != nil {
		return err
	}
	defer group.remove()
	if s.binary == "" {
		if s.binary, err = build(root, dir); err != nil {
			return err
		}
	}

	book := newLedger(s.seed, pod.maxBodyBytes)
	up, err := startUpstream(book, s, dir)
	if err != nil {
		return err
	}
	defer up.close()
	p, err := startProxy(s.binary, pod, group, up, dir)
	if err != nil {
		return err
	}
	defer p.kill()

	t := newTally(stderr)
	c := newClient(p.url, book, t, s.timeout)
	m := &monitor{proxy: p, group: group, tally: t, progress: stderr, begun: time.Now()}
	m.baseline()
	fmt.Fprintf(stderr, "soak: %v of load, seed %d, %s, limit %s\n", s.length(), s.seed, s.protocol, group)
	l := load{settings: s, mix: mix{settings: s, pod: pod}, client: c, upstream: up, monitor: m}
	if l.run(ctx) {
		l.leave()
		m.settle()
		l.sweep()
		l.leave()
		m.settle()
	}
	up.close()
	m.end(p.stop())

	r := report{settings: s, pod: pod, group: group, monitor: m, tally: t, upstream: up}
	return r.write(stdout)
}

func (s settings) length() time.Duration { return time.Duration(s.minutes * float64(time.Minute)) }
