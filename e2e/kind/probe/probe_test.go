package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

// What check.sh does in a cluster, without one: the proxy is told to stop in the middle of the stream, and the stream survives.
func TestStreamOutlivesTheStop(t *testing.T) {
	upstream := httptest.NewServer(newUpstream())
	defer upstream.Close()
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
	assert.Equal(t, lines.Text(), "the first event is here")

	stopped := make(chan int, 1)
	go func() { stopped <- proxy.Stop(t) }()
	assert.NilError(t, release(ctx, upstream.URL))
	assert.Assert(t, lines.Scan())
	assert.Equal(t, lines.Text(), "the last event is here")
	assert.NilError(t, <-ended)
	assert.Equal(t, <-stopped, 0)
}

func TestStreamSaysWhatIsWrong(t *testing.T) {
	upstream := httptest.NewServer(newUpstream())
	defer upstream.Close()

	t.Run("the proxy adds no flag", func(t *testing.T) {
		proxy := binary.Start(t, binary.Config{Upstream: upstream.URL, Headers: "headers = []"})
		err := stream(t.Context(), proxy.URL, io.Discard)
		assert.ErrorContains(t, err, "401 Unauthorized: the proxy did not add the OAuth beta flag")
	})
	t.Run("the stream is cut", func(t *testing.T) {
		proxy := binary.Start(t, binary.Config{Upstream: upstream.URL})
		printed, out := io.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- stream(t.Context(), proxy.URL, out) }()
		_, err := bufio.NewReader(printed).ReadString('\n')
		assert.NilError(t, err)
		upstream.CloseClientConnections()
		assert.ErrorContains(t, <-ended, `the stream ended after "", without the last event`)
	})
	t.Run("the proxy is not there", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		assert.ErrorContains(t, stream(ctx, "http://"+unused(t), io.Discard), "/health never answered 200")
	})
}

func TestRefused(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer listener.Close()

	assert.ErrorContains(t, refused(t.Context(), "http://"+listener.Addr().String()), "lets this pod in")
	assert.NilError(t, refused(t.Context(), "http://"+unused(t)))
	assert.ErrorContains(t, refused(t.Context(), "http://no-such-name.invalid:80"), "no-such-name.invalid")
}

// unused is an address on which nothing listens.
func unused(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer listener.Close()
	return listener.Addr().String()
}
