//go:build linux

// Soak runs the proxy for a while as its pod would: the real binary, with the configuration, environment and memory limit of
// k8s/, without swap. It sends a mixed load through the proxy and causes faults. For every request it knows the right result.
//
//	go run -C e2e ./soak -minutes 20
//
// It needs Linux and about half of one core. The memory limit needs root. mix.go defines the requests. Clients leave in every phase,
// read slowly, stop reading or stop sending. Bodies have up to 32 MiB. The upstream stalls, answers early, breaks off, becomes silent
// or sends GOAWAY. There are bursts of uploads larger than max_buffered_bytes, and waves of more streams than max_connections.
//
// Every request must end as planned. The proxy's counters and log must agree with its clients. After the load, heap, goroutines,
// descriptors and held body bytes must be as before. Otherwise the exit code is 1. The requests are the same every time, but their
// order depends on the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/pod"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
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
	minutes, pace float64
	timeout       time.Duration
}

// run loads the proxy over each protocol for half of the time. It returns an error if it could not do so or found a problem.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var s settings
	set := flag.NewFlagSet("soak", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.Float64Var(&s.minutes, "minutes", 20, "how long the load lasts, in `minutes`, half of it over each protocol")
	set.Float64Var(&s.pace, "pace", 1, "how much `faster` bursts and waves follow each other")
	set.DurationVar(&s.timeout, "timeout", 20*time.Second, "timeout_secs of the proxy: short enough for timeouts to happen within the run")
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() > 0 || s.minutes <= 0 || s.pace <= 0 || s.timeout < time.Second || s.timeout%time.Second != 0 {
		return errors.New("want only flags; numbers must be above 0, and the timeout a whole number of seconds: see -help")
	}
	dir, err := os.MkdirTemp("", "soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := binary.Build(filepath.Join(dir, "anthropic-oauth-proxy")); err != nil {
		return err
	}
	return errors.Join(soak(ctx, s, "HTTP/2", dir, stdout, stderr), soak(ctx, s, "HTTP/1.1", dir, stdout, stderr))
}

func soak(ctx context.Context, s settings, protocol, dir string, stdout, stderr io.Writer) error {
	length := time.Duration(s.minutes / 2 * float64(time.Minute))
	deployed, err := pod.Read(map[string]int64{"timeout_secs": int64(s.timeout / time.Second)})
	if err != nil {
		return err
	}
	up, err := standin.Start(standin.Options{HTTP1: protocol == "HTTP/1.1", Streams: 10000})
	if err != nil {
		return err
	}
	defer up.Close()
	config := binary.Config{
		Upstream: up.URL, CAFile: up.CAFile, Text: deployed.Config, Env: deployed.Env, Flags: []string{"--log-level", "info"}, Binary: filepath.Join(dir, "anthropic-oauth-proxy"),
	}
	group, err := binary.NewCgroup(deployed.Memory)
	if err == nil {
		defer group.Remove()
		config.Under = group.Under()
	} else {
		fmt.Fprintf(stderr, "soak: without a memory limit: %v\n", err)
	}
	p, err := binary.Launch(dir, config)
	if err != nil {
		return err
	}
	defer p.Kill()
	l := &load{mix: mix{deployed, s.timeout, s.pace}, up: up, client: client.New(p.URL), progress: stderr,
		body: make([]byte, deployed.MaxBodyBytes+2*mib), kinds: map[string]int{}, statuses: map[int]int{}}
	_, _ = rand.NewChaCha8([32]byte{}).Read(l.body) // never fails
	m := &monitor{proxy: p, group: group, load: l, highest: binary.Metrics{}}
	m.first = m.sample()
	l.run(ctx, length, m)
	m.settle()
	return m.report(stdout, fmt.Sprintf("Soak: %v of %s", length, protocol))
}
