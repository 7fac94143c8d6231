package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

// What check.sh does in a cluster, without a cluster: the proxy gets SIGTERM in the middle of a stream, and the stream survives.
func TestStreamOutlivesTheStop(t *testing.T) {
	upstream := upstream(t)
	proxy := binary.Start(t, binary.Config{Upstream: upstream.URL})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	printed, out := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := stream(ctx, proxy.URL, out)
		out.CloseWithError(io.EOF)
		ended <- err
	}()
	lines := bufio.NewScanner(printed)
	if !lines.Scan() {
		t.Fatalf("the stream ended before its first event: %v", <-ended)
	}
	assert.Equal(t, lines.Text(), "the first event arrived")

	stopped := make(chan int, 1)
	go func() { stopped <- proxy.Stop(t) }()
	proxy.State(t, "draining")
	assert.NilError(t, proxy.Signal(syscall.SIGTERM)) // as the kubelet does after a restart of the container runtime
	assert.NilError(t, release(ctx, upstream.URL))
	assert.Assert(t, lines.Scan())
	assert.Equal(t, lines.Text(), "the last event arrived")
	assert.NilError(t, <-ended)
	assert.Equal(t, <-stopped, 0)
}

// upstream starts what probe.yaml deploys: the stand-in without TLS.
func upstream(t *testing.T) *standin.Server {
	t.Helper()
	s, err := standin.Start(standin.Options{Plain: true})
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, s.Close()) })
	return s
}
