//go:build linux

// Command bench measures what the proxy costs, side by side with what a user would pick instead: nginx, HAProxy, Caddy
// and a dozen lines of Go. It prints a Markdown table on standard output; progress goes to standard error.
//
//	go run -C e2e ./bench                                    # everything, five rounds
//	go run -C e2e ./bench -only ours,nginx -measure distance # a part
//	go run -C e2e ./bench -quick                             # one short round, to see that all of it works
//
// Every contender stands, in turn and in a fresh process, between the same clients and the same stand-in for the API.
// It has one CPU to itself; clients and stand-in, which are this process, have the others. CPU is the kernel's account
// of the contender's processes, in nanoseconds, memory their proportional set size. A round measures every contender
// once, so that whatever else changes on the machine changes for all; a figure is the median of the rounds, and a ratio
// the median of the rounds' ratios. Bytes that are not what was sent fail the measurement.
//
// The measure "distance" puts 20 and 80 ms between contender and stand-in: by a relay, or, with -netem and as root, on a
// network of its own with the kernel's netem.
//
// The contenders' configurations are the files beside this one. It runs on Linux, with two CPUs or more. Debian has the others
// as nginx-light, haproxy and caddy; `-only` leaves a contender out.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == bareName {
		fmt.Fprintln(os.Stderr, serveBare(os.Args[2:]))
		os.Exit(1)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	rounds := flag.Int("rounds", 5, "how often each contender is measured")
	only := flag.String("only", "", "contenders, separated by commas (default all: "+strings.Join(names(contenders), ",")+")")
	which := flag.String("measure", "", "measures, separated by commas (default all: "+strings.Join(names(measures([]int{1})), ",")+")")
	streams := flag.String("streams", "10,100,1000,4000", "numbers of streams at which events are measured")
	quick := flag.Bool("quick", false, "one round of short measurements, to see that all of it works")
	ours := flag.String("ours", "", "the proxy's binary (default: built from this tree)")
	netem := flag.Bool("netem", false, "make distance with the kernel's netem, in a network namespace (root)")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: there are only flags, see -help", flag.Arg(0))
	}
	cpu, err := pinRig()
	if err != nil {
		return err
	}
	chosen, err := choose("only", *only, contenders)
	if err != nil {
		return err
	}
	counts, err := parseCounts(*streams)
	if err != nil {
		return err
	}
	wanted, err := choose("measure", *which, measures(counts))
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	killOnSignal(dir)
	r := &rig{dir: dir, ours: *ours, self: filepath.Join(dir, "bench"), proxyCPU: cpu, netem: *netem, size: fullSize}
	if *quick {
		*rounds, r.size = 1, quickSize
	}
	if r.ours == "" {
		r.ours = filepath.Join(dir, "anthropic-oauth-proxy")
		if err := binary.Build(r.ours); err != nil {
			return err
		}
	}
	if r.ours, err = filepath.Abs(r.ours); err != nil { // it is started in a folder of its own
		return err
	}
	program, err := os.ReadFile("/proc/self/exe") // a copy, whose memory is not shared with the rig
	if err != nil {
		return err
	}
	if err := os.WriteFile(r.self, program, 0o755); err != nil {
		return err
	}
	debug.SetGCPercent(-1) // garbage is collected between measurements, so that collecting does not show in the delays
	debug.SetMemoryLimit(2 << 30)
	samples, err := r.measureAll(*rounds, wanted, chosen)
	fmt.Print(table(samples))
	return err
}

// measures are all there are; events are one for each number of streams.
func measures(counts []int) []measure {
	all := []measure{
		{name: "open", run: measureOpen},
		{name: "small", run: measureSmall},
		{name: "uploads", run: measureUploads},
		{name: "ready", start: measureReady},
	}
	for _, far := range distances {
		all = append(all, measure{name: "distance", run: measureDistance, withDirect: true, far: far})
	}
	for _, n := range counts {
		all = append(all, eventsMeasure(n))
	}
	return all
}

// measureAll goes round by round, and begins each round with another contender, so that no order favours one.
func (r *rig) measureAll(rounds int, measures []measure, contenders []contender) (samples []sample, err error) {
	for _, m := range measures {
		for round := range rounds {
			order := slices.Clone(contenders)
			if m.withDirect {
				order = append(order, direct)
			}
			for i := range order {
				c := order[(i+round)%len(order)]
				fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s\n", m.name, round+1, rounds, c.name)
				readings, err := r.measure(m, c)
				if err != nil {
					return samples, fmt.Errorf("%s of %s: %w", m.name, c.name, err)
				}
				for _, one := range readings {
					fmt.Fprintf(os.Stderr, "  %s: %s %s\n", one.name, format(one.value), one.unit)
					samples = append(samples, sample{c.name, round, one})
				}
			}
		}
	}
	return samples, nil
}

func parseCounts(list string) ([]int, error) {
	var counts []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxStreams {
			return nil, fmt.Errorf("-streams: %q is not a number from 1 to %d", text, maxStreams)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// names are what can be chosen from.
func names[T fmt.Stringer](all []T) []string {
	var list []string
	for _, one := range all {
		list = append(list, one.String())
	}
	return slices.Compact(list)
}

// choose returns those of all that a flag lists. An empty list chooses all.
func choose[T fmt.Stringer](flagName, list string, all []T) ([]T, error) {
	wanted, there := strings.Split(list, ","), names(all)
	for _, name := range wanted {
		if list != "" && !slices.Contains(there, name) {
			return nil, fmt.Errorf("-%s: no %q, only %s", flagName, name, strings.Join(there, ","))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(one T) bool { return list != "" && !slices.Contains(wanted, one.String()) }), nil
}

func (c contender) String() string { return c.name }
func (m measure) String() string   { return m.name }
