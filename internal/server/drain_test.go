package server

import (
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// Contract section 6: a client between two requests is not reset. For a while its next request still works, and the answer has
// Connection: close. Only connections that stay unused are closed. On a developer's machine this takes a second. In a cluster, where the
// drain may take minutes, it takes longer than the 90 s after which common clients close a connection themselves.
func TestDrainLetsIdleClientsLeave(t *testing.T) {
	for _, tt := range []struct{ limit, usable, end time.Duration }{
		{30 * time.Second, 900 * time.Millisecond, 3 * time.Second},
		{10 * time.Minute, 95 * time.Second, 2 * time.Minute},
	} {
		t.Run(tt.limit.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOptions()
				o.Drain = tt.limit
				b := startIn(t, o)
				busy, idle := b.connect(), b.connect()
				busy.get("/")
				idle.get("/")
				b.beginDrain()
				synctest.Wait()
				_, err := b.listener.dial()
				assert.ErrorIs(t, err, net.ErrClosed, "new connections are refused")

				for range 2 { // each use of one connection restarts the wait for all
					time.Sleep(tt.usable)
					assert.Equal(t, b.hasDrained(), false)
					resp, body := busy.get("/last") // the proxy's own handler would add Connection: close
					assert.Equal(t, resp.StatusCode, http.StatusOK)
					assert.Equal(t, body, "proxied /last")
				}
				resp, _ := idle.get("/health")
				assert.Equal(t, resp.Close, true)
				assert.Equal(t, idle.closedAfter(), time.Duration(0))

				quiet := busy.closedAfter()
				assert.Check(t, quiet > tt.usable && quiet < tt.end, "closed after %v without use", quiet)
				assert.Equal(t, <-b.drained, 0)
			})
		})
	}
}

// Contract section 6: running requests may finish, however long that takes within the deadline. Meanwhile idle connections stay usable.
func TestDrainLetsRequestsFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, h := newOptions(), newHanging()
		o.Proxy = h
		b := startIn(t, o)
		running, beside := b.connect(), b.connect()
		beside.get("/health")
		running.send("GET", "/")
		<-h.arrived
		b.beginDrain()
		time.Sleep(9 * time.Minute) // one minute more, and nobody keeps an idle connection
		resp, _ := beside.get("/health")
		assert.Equal(t, resp.StatusCode, http.StatusServiceUnavailable)
		time.Sleep(50 * time.Minute)
		assert.Equal(t, b.hasDrained(), false)
		start := time.Now()
		close(h.release)
		_, body := running.receive()
		assert.Equal(t, body, "done")
		assert.NilError(t, <-h.causes)
		assert.Equal(t, <-b.drained, 0)
		assert.Check(t, time.Since(start) < 2*time.Minute, "it took %v", time.Since(start))
	})
}

// Contract section 6: at the deadline the requests' contexts end with the given cause, their connections are cut without a proper end, and
// they are counted. With a deadline of 0 this happens at once.
func TestDrainDeadline(t *testing.T) {
	for _, limit := range []time.Duration{0, time.Second, time.Hour} {
		t.Run(limit.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, h := newOptions(), newHanging()
				o.Proxy, o.Drain = h, limit
				b := startIn(t, o)
				one, two, idle := b.connect(), b.connect(), b.connect()
				idle.get("/health")
				one.send("GET", "/")
				two.send("GET", "/")
				<-h.arrived
				<-h.arrived
				start := time.Now()
				b.beginDrain()
				assert.ErrorIs(t, <-h.causes, errAbort)
				assert.ErrorIs(t, <-h.causes, errAbort)
				assert.Equal(t, time.Since(start), limit)
				for _, c := range []*client{one, two} {
					_, err := c.in.ReadByte()
					assert.Check(t, errors.Is(err, io.EOF), "the server answered, or did not cut: %v", err)
				}
				assert.Equal(t, <-b.drained, 2)
				assert.Check(t, time.Since(start) <= limit+3*time.Second, "it took %v", time.Since(start))
			})
		})
	}
}

// Contract section 6: without connections the drain ends at once. A connection that was never used delays the end only by a moment, and not
// at all if the deadline is 0.
func TestDrainGivesUpUnusedConnections(t *testing.T) {
	for _, tt := range []struct {
		name            string
		limit, at, most time.Duration
	}{
		{"no connection", time.Hour, 0, 0},
		{"unused", 30 * time.Second, time.Nanosecond, 5 * time.Second},
		{"unused, no time", 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOptions()
				o.Drain = tt.limit
				b := startIn(t, o)
				c := b.connect()
				if tt.name == "no connection" {
					c.get("/")
					c.Close()
				}
				synctest.Wait()
				start := time.Now()
				b.beginDrain()
				assert.Equal(t, <-b.drained, 0)
				took := time.Since(start)
				assert.Check(t, took >= tt.at && took <= tt.most, "it took %v", took)
			})
		})
	}
}

// Contract section 6: in the drain, a request on a connection that is still open is served to its end. It must not be read and dropped,
// because the client could not know whether it was run. This includes connections that were never used before.
func TestDrainServesWhatItHasNotClosed(t *testing.T) {
	for _, kind := range []string{"kept", "unused"} {
		for moment := 100 * time.Millisecond; moment < 4*time.Second; moment += 200 * time.Millisecond {
			t.Run(kind+" "+moment.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o, h := newOptions(), newHanging()
					o.Proxy, o.Drain = h, time.Minute
					b := startIn(t, o)
					c, silent := b.connect(), b.connect() // the drain has to wait for the silent one
					if kind == "kept" {
						c.get("/health")
					}
					synctest.Wait()
					b.beginDrain()
					time.Sleep(moment)
					if c.isClosed() {
						return // the client knows that nothing it sends will be read
					}
					c.send("GET", "/")
					synctest.Wait()
					assert.Equal(t, len(h.arrived), 1, "the request was read, and dropped")
					time.Sleep(30 * time.Second)
					assert.Equal(t, b.hasDrained(), false)
					close(h.release)
					_, body := c.receive()
					assert.Equal(t, body, "done")
					assert.Equal(t, <-b.drained, 0)
					silent.Close()
				})
			})
		}
	}
}

// Contract section 6: the deadline also ends a handler that is stuck in a write to a client that does not read, or in a read of a body.
func TestDrainDeadlineEndsStuckHandlers(t *testing.T) {
	for name, handle := range map[string]func(w http.ResponseWriter, r *http.Request) error{
		"write": func(w http.ResponseWriter, _ *http.Request) (err error) {
			for err == nil {
				_, err = w.Write(make([]byte, 64<<10))
			}
			return err
		},
		"read": func(_ http.ResponseWriter, r *http.Request) error {
			_, err := io.ReadAll(r.Body)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOptions()
				o.Drain = time.Minute
				stuck := make(chan error, 1)
				o.Proxy = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					http.NewResponseController(w).SetReadDeadline(time.Time{}) // as the proxy does
					stuck <- handle(w, r)
					panic(http.ErrAbortHandler)
				})
				b := startIn(t, o)
				b.connect().write("POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 10\r\n\r\n1")
				synctest.Wait()
				start := time.Now()
				b.beginDrain()
				assert.Equal(t, <-b.drained, 1)
				took := time.Since(start)
				assert.Check(t, took >= time.Minute && took < time.Minute+5*time.Second, "it took %v", took)
				assert.ErrorContains(t, <-stuck, "")
			})
		})
	}
}
