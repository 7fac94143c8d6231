// Package rollout tests that a rolling update loses nothing. While one process after the other takes over, no request fails and no
// stream is cut, although clients keep their connections.
package rollout

import (
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/distance"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

const (
	rollouts = 20
	// preStop stands for the manifests' 10 s, which give the cluster time to remove the endpoint everywhere. Here that happens at
	// once, so less time is enough.
	preStop = 300 * time.Millisecond
	// roundTrip lets a request cross a connection's close on the way. On plain loopback that hardly ever happens.
	roundTrip = 40 * time.Millisecond
)

var (
	question = standin.Part{}
	stream   = standin.Part{Events: 40, Every: 25 * time.Millisecond} // it lasts longer than preStop
)

// load holds the clients' counters.
type load struct {
	url              string
	requests, failed atomic.Int64
	streams, cut     atomic.Int64
	kinds            sync.Map // of failures that have been reported
}

// client sends one request after the other on its own kept connection until stop, with pauses of up to think. A lost request is
// always counted, because the client cannot silently send it again.
func (l *load) client(t *testing.T, stop <-chan struct{}, p standin.Part, think time.Duration) {
	c := client.New(l.url)
	defer c.Close()
	for {
		var err error
		sent, failed := &l.requests, &l.failed
		if p.Events > 0 {
			sent, failed = &l.streams, &l.cut
			var s *client.Stream
			if s, err = c.Open(t.Context(), p, []byte("a question")); err == nil {
				err = s.Rest()
				s.Close()
			}
		} else {
			err = c.Ask(t.Context(), p, []byte("a question"))
		}
		sent.Add(1)
		if err != nil {
			failed.Add(1)
			if _, known := l.kinds.LoadOrStore(err.Error(), true); !known {
				t.Log(p, err)
			}
		}
		select {
		case <-stop:
			return
		case <-time.After(rand.N(think)):
		}
	}
}

// Twenty times, a new process takes over from the old one, while clients that keep their connections send requests. Some are always
// busy, some pause up to two seconds, and some stream all the time.
func TestRollouts(t *testing.T) {
	up, err := standin.Start(standin.Options{})
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, up.Close()) })
	config := binary.Config{Upstream: up.URL, CAFile: up.CAFile, Proxy: "drain_timeout_secs = 600"} // the manifests'
	old := binary.Start(t, config)
	path, err := distance.NewRelay(strings.TrimPrefix(old.URL, "http://"), roundTrip)
	assert.NilError(t, err)
	t.Cleanup(func() { path.Close() })
	l := &load{url: "http://" + path.Addr()}

	stop := make(chan struct{})
	var clients sync.WaitGroup
	start := func(n int, p standin.Part, think time.Duration) {
		for range n {
			clients.Go(func() { l.client(t, stop, p, think) })
		}
	}
	start(8, question, 20*time.Millisecond)
	start(12, question, 2*time.Second)
	start(6, stream, 50*time.Millisecond)

	for range rollouts {
		next := binary.Start(t, config)
		path.Switch(strings.TrimPrefix(next.URL, "http://"))
		<-time.After(preStop)
		code := old.Stop(t) // sends SIGTERM and waits for the end
		assert.Equal(t, code, 0)
		assert.Assert(t, path.Dialed() > 0, "no client went over to the new process: nothing was tested")
		old = next
	}
	close(stop)
	clients.Wait()
	t.Logf("%d rollouts: %d requests, %d failed; %d streams, %d cut", rollouts, l.requests.Load(), l.failed.Load(), l.streams.Load(), l.cut.Load())
	assert.Check(t, l.failed.Load() == 0, "requests failed")
	assert.Check(t, l.cut.Load() == 0, "streams were cut")
	assert.Check(t, l.requests.Load() > 100*rollouts && l.streams.Load() > rollouts, "too little load to prove anything")
}
