// Package hostile puts the proxy under everything that takes its memory, at once, with the limits it is deployed with: clients
// that do not read what pours at them, idle streams, and more and larger uploads than it may hold. Nothing may be refused, and
// the kernel may not have to end anything.
package hostile

import (
	"context"
	"os"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/pod"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

const (
	pourers = 200
	idlers  = 1000 // some of which have to queue, as the others take all slots
	uploads = 64   // of 10 MiB
	large   = 8    // of the largest size there is
)

func TestMemoryUnderHostility(t *testing.T) {
	for name, options := range map[string]standin.Options{"HTTP2": {Streams: 2 * idlers}, "HTTP1": {HTTP1: true}} {
		t.Run(name, func(t *testing.T) { hostility(t, options) })
	}
}

func hostility(t *testing.T, options standin.Options) {
	deployed, err := pod.Read(600 * time.Second)
	assert.NilError(t, err)
	group, err := binary.NewCgroup(deployed.Memory)
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	assert.NilError(t, err)
	t.Cleanup(group.Remove)
	up, err := standin.Start(options)
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, up.Close()) })
	proxy := binary.Start(t, binary.Config{Upstream: up.URL, CAFile: up.CAFile, Text: deployed.Config, Env: deployed.Env, Under: group.Under()})
	c := client.New(proxy.URL)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)

	// open opens streams and reads the first event of each, from several goroutines.
	open := func(n int, p standin.Part) (opened chan *client.Stream, ended chan error) {
		opened, ended = make(chan *client.Stream, n), make(chan error, n)
		for range n {
			go func() {
				s, err := c.Open(ctx, p, []byte("{}"))
				if err == nil {
					_, err = s.Next()
				}
				ended <- err
				opened <- s
			}()
		}
		return opened, ended
	}
	all := func(what string, n int, ended chan error) {
		t.Helper()
		for range n {
			assert.NilError(t, <-ended, what)
		}
	}
	idle := standin.Part{Events: 1, End: standin.Hold}
	queued := max(0, pourers+idlers+uploads+large-int(deployed.MaxConnections))
	pouring, ended := open(pourers, standin.Part{Events: 1 << 30, Text: 16 << 10})
	all("what pours", pourers, ended)
	idling, ended := open(idlers-queued, idle)
	all("idle streams", idlers-queued, ended)

	body := make([]byte, deployed.MaxBodyBytes)
	answered := make(chan error, uploads+large)
	for n := range uploads + large {
		size := min(10<<20, len(body))
		if n >= uploads {
			size = len(body)
		}
		go func() { answered <- c.Ask(ctx, standin.Part{Rate: 160 << 20}, body[:size]) }()
	}
	waiting, ended := open(queued, idle)
	all("uploads", uploads+large, answered)
	for range pourers { // they leave, and let in who waits
		(<-pouring).Close()
	}
	all("streams that were queued", queued, ended)
	rss, err := binary.Status(proxy.PID(), "VmHWM")
	assert.NilError(t, err)
	t.Logf("peak RSS %d MiB, peak counted %d MiB, limit %s", rss>>20, group.Peak()>>20, group)
	assert.Equal(t, group.Kills(), int64(0), "killed for want of memory")

	over := make(chan error, idlers)
	for n := range idlers {
		streams := idling
		if n >= idlers-queued {
			streams = waiting
		}
		go func() { s := <-streams; over <- s.Rest() }()
	}
	released := time.NewTicker(100 * time.Millisecond)
	defer released.Stop()
	for n := 0; n < idlers; {
		select {
		case err := <-over:
			assert.NilError(t, err)
			n++
		case <-released.C:
			up.Release()
		}
	}
}
