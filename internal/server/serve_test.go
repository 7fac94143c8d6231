package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// Contract section 6: starting, running, draining, stopped, once each; running names the address that is bound.
func TestServe(t *testing.T) {
	f := newFakes()
	s := New(f.opts)
	ctx, drain := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, "127.0.0.1:0") }()
	var addr string
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		f.log.mu.Lock()
		defer f.log.mu.Unlock()
		for _, line := range f.log.lines {
			if line["state"] == "running" {
				addr = line["addr"].(string)
				return poll.Success()
			}
		}
		return poll.Continue("not running")
	}, poll.WithTimeout(30*time.Second), poll.WithDelay(time.Millisecond))
	assert.Equal(t, f.log.all(), "starting running")
	assert.Equal(t, s.Draining(), false)

	req, err := http.NewRequest("GET", "http://"+addr+"/v1", nil)
	assert.NilError(t, err)
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	assert.NilError(t, err)
	body, err := io.ReadAll(resp.Body)
	assert.NilError(t, err)
	resp.Body.Close()
	assert.Equal(t, string(body), "proxied /v1")

	drain()
	assert.NilError(t, <-served)
	assert.Equal(t, s.Draining(), true)
	assert.Equal(t, f.log.all(), "starting running draining stopped")
	_, err = net.Dial("tcp", addr)
	assert.ErrorIs(t, err, syscall.ECONNREFUSED)
}
