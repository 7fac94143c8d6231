// Package deadpeer takes the upstream's host away, without a word, and watches the proxy notice.
//
// Contract row 2.5: within 60 s, whatever timeout_secs is. This is about HTTP/1.1, where only TCP can notice; for HTTP/2
// see the tests of internal/upstream, which need no wall clock.
package deadpeer

import (
	"context"
	"errors"
	"net/http"
	"os"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/distance"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

const limit = 60 * time.Second // the contract's

var (
	waiting   = standin.Part{Name: "waiting", End: standin.Hang}                // everything sent is acknowledged: keep-alive probes must notice
	streaming = standin.Part{Name: "streaming", Events: 1, End: standin.Hang}   // the same in the middle of an answer
	uploading = standin.Part{Name: "uploading", Early: true, End: standin.Hang} // the upstream does not read on: data is in flight, and probes wait for it
)

func TestDeadPeer(t *testing.T) {
	host, err := distance.NewHost()
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("no network namespace can be made here (root and iproute2 are needed): %v", err)
	}
	assert.NilError(t, err)
	t.Cleanup(host.Close)
	listener, err := host.Listen()
	assert.NilError(t, err)
	up, err := standin.Start(standin.Options{Listener: listener, Plain: true})
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, up.Close()) })
	proxy := binary.Start(t, binary.Config{Upstream: up.URL, Proxy: "timeout_secs = 600\nretries = 0"})
	c := client.New(proxy.URL)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit)
	t.Cleanup(cancel)

	type result struct {
		part standin.Part
		err  error
		at   time.Time
	}
	results := make(chan result, 3)
	begun := make(chan struct{})
	go func() {
		events, err := c.Open(ctx, streaming, []byte("x"))
		if err == nil {
			_, err = events.Next()
			close(begun)
		}
		if err == nil {
			err = events.Rest()
		}
		results <- result{streaming, err, time.Now()}
	}()
	for part, size := range map[standin.Part]int{waiting: 10, uploading: 8 << 20} {
		go func() {
			err := c.Ask(ctx, part, make([]byte, size))
			results <- result{part, err, time.Now()}
		}()
		assert.NilError(t, up.Await(ctx, part.Name, func(arrived, _ int) bool { return arrived == 1 }))
	}
	select {
	case <-begun:
	case r := <-results:
		t.Fatalf("%s ended too soon: %v", r.part, r.err)
	}
	t.Logf("reached by all; the host vanishes")
	assert.NilError(t, host.Run("iptables", "-A", "INPUT", "-j", "DROP"))
	assert.NilError(t, host.Run("iptables", "-A", "OUTPUT", "-j", "DROP"))
	vanished := time.Now()
	for range 3 {
		r := <-results
		took := r.at.Sub(vanished)
		t.Logf("%s: noticed after %v: %v", r.part.Name, took.Round(time.Second), r.err)
		assert.Check(t, took > 0 && took < limit)
		if r.part == streaming {
			assert.Check(t, r.err != nil && !errors.Is(r.err, client.ErrWrongBytes), "a stream must be aborted, not ended")
		} else {
			timedOut(t, r.err, "timeout after 45s (1 attempts): the connection died")
		}
	}

	// Row 2.1: nor does the host take new connections.
	timedOut(t, c.Ask(ctx, waiting, []byte("x")), "s (1 attempts): cannot connect")
}

func timedOut(t *testing.T, err error, message string) {
	t.Helper()
	var refused *client.StatusError
	assert.Assert(t, errors.As(err, &refused), "%v", err)
	assert.Check(t, is.Equal(refused.Status, http.StatusGatewayTimeout))
	assert.Check(t, is.Contains(refused.Body, message))
}
