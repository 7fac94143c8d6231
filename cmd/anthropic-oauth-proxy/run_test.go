package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"
)

// outcome is the result of a run that does not serve.
type outcome struct {
	code           int
	stdout, stderr string
}

// lines returns the lines of standard error.
func (o outcome) lines() []string {
	if o.stderr == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(o.stderr, "\n"), "\n")
}

// runHere calls run() in this process, with its own environment and streams. It serves on a free port.
func runHere(t *testing.T, args ...string) (p *process, signals chan<- os.Signal) {
	t.Helper()
	ch := make(chan os.Signal)
	p = &process{t: t, stderr: &lineLog{}, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.code = run(ch, append(args, "--listen", "127.0.0.1:0"), func(string) string { return "" }, io.Discard, p.stderr)
	}()
	p.addr = p.state("running")["addr"].(string)
	return p, ch
}

// call calls run() with its own environment and streams, and returns when it has ended by itself.
func call(t *testing.T, env map[string]string, args ...string) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(make(chan os.Signal), args, func(name string) string { return env[name] }, &stdout, &stderr)
	}()
	code := receive(t, ended, "the return of run: it seems to serve")
	return outcome{code, stdout.String(), stderr.String()}
}
