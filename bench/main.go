// Command bench measures what the proxy costs, side by side with what a user would pick instead: nginx, HAProxy, Caddy
// and a dozen lines of Go. It prints a Markdown table on standard output; progress goes to standard error.
//
//	go run -C bench .                                  # everything, five rounds
//	go run -C bench . -only ours,nginx -measure open   # a part
//	go run -C bench . -quick                           # one short round, to see that all of it works
//
// Every contender stands, in turn and in a fresh process, between the same clients and the same stand-in for the API.
// It has one CPU to itself; clients and stand-in, which are this process, have the others. CPU is the kernel's account
// of the contender's processes, in nanoseconds, memory their proportional set size. A round measures every contender
// once, so that whatever else changes on the machine changes for all; a figure is the median of the rounds, and a ratio
// the median of the rounds' ratios. Bytes that are not what was sent fail the measurement.
//
// The contenders' configurations are the files beside this one. It runs on Linux, with two CPUs or more, and tells which
// Debian package is missing; `-only` leaves a contender out.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == naiveCommand {
		fmt.Fprintln(os.Stderr, serveNaive(os.Args[2:]))
		os.Exit(1)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	rounds := flag.Int("rounds", 5, "how often each contender is measured")
	only := flag.String("only", "", "contenders, separated by commas (default all: "+strings.Join(contenderNames(), ",")+")")
	which := flag.String("measure", "", "measures, separated by commas (default all: "+strings.Join(measureNames(), ",")+")")
	streams := flag.String("streams", "10,100,1000,4000", "numbers of streams at which events are measured")
	quick := flag.Bool("quick", false, "one round of short measurements, to see that all of it works")
	ours := flag.String("ours", "", "the proxy's binary (default: built from the folder above)")
	file := flag.String("samples", "", "a file of samples to add to, for a table made in several runs")
	flag.Parse()

	cpu, err := pinRig()
	if err != nil {
		return err
	}
	contenders, err := selectContenders(*only)
	if err != nil {
		return err
	}
	counts, err := parseCounts(*streams)
	if err != nil {
		return err
	}
	size := fullSize
	if *quick {
		*rounds, size = 1, quickSize
	}
	measures, err := selectMeasures(*which, counts)
	if err != nil {
		return err
	}
	samples, err := loadSamples(*file)
	if err != nil {
		return err
	}

	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if *ours == "" {
		*ours = filepath.Join(dir, "anthropic-oauth-proxy")
		build := exec.Command("go", "build", "-C", "..", "-o", *ours, "./cmd/anthropic-oauth-proxy")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build the proxy (run this in its folder, or give -ours): %w\n%s", err, out)
		}
	}
	if *ours, err = filepath.Abs(*ours); err != nil { // it is started in a folder of its own
		return err
	}
	debug.SetGCPercent(-1) // renew collects garbage between measurements, so that collecting does not show in the delays
	debug.SetMemoryLimit(2 << 30)
	self := filepath.Join(dir, "bench") // a copy, whose memory is not shared with the rig
	if err := copyFile("/proc/self/exe", self); err != nil {
		return err
	}
	r := &rig{dir: dir, ours: *ours, self: self, proxyCPU: cpu, size: size}
	killOnSignal(r)
	err = measureAll(r, *rounds, measures, contenders, samples)
	fmt.Print(table(samples.all))
	return err
}

// measureAll goes round by round, and begins each round with another contender, so that no order favours one.
func measureAll(r *rig, rounds int, measures []measure, contenders []contender, samples *samples) error {
	for _, m := range measures {
		first := samples.nextRound(m.name)
		for round := range rounds {
			order := slices.Clone(contenders)
			if m.withDirect {
				order = append(order, direct)
			}
			for i := range order {
				c := order[(i+round)%len(order)]
				if err := r.renew(); err != nil {
					return err
				}
				fmt.Fprintf(os.Stderr, "%s, round %d of %d: %s\n", m.name, round+1, rounds, c.name)
				readings, err := m.run(r, c)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", m.name, c.name, err)
				}
				for _, reading := range readings {
					fmt.Fprintf(os.Stderr, "  %s: %s\n", reading.Metric.Name, format(reading.Value))
				}
				if err := samples.add(m.name, c.name, first+round, readings); err != nil {
					return err
				}
			}
		}
	}
	return nil
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

// selected checks a list of names given in a flag. An empty list selects all.
func selected(flagName, list string, all []string) ([]string, error) {
	if list == "" {
		return all, nil
	}
	names := strings.Split(list, ",")
	for _, name := range names {
		if !slices.Contains(all, name) {
			return nil, fmt.Errorf("-%s: no %q, only %s", flagName, name, strings.Join(all, ", "))
		}
	}
	return names, nil
}
