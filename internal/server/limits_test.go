package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// Contract section 4: beyond the limit the longest idle connection is closed; if none is idle and the spare ones are taken, the new one.
func TestConnectionLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, h := newOptions(), newHanging()
		o.Proxy, o.MaxConns = h, 3
		b := startIn(t, o)
		busy, first, second := b.connect(), b.connect(), b.connect()
		busy.send("GET", "/hanging")
		<-h.arrived
		for _, c := range []*client{first, second, first} { // now second is the longest idle
			time.Sleep(time.Second)
			c.get("/health")
		}
		time.Sleep(time.Second)
		third := b.connect()
		third.get("/health")
		synctest.Wait()
		assert.Assert(t, second.isClosed())
		assert.Assert(t, !first.isClosed() && !third.isClosed())
		busyOnes := []*client{busy, first, third}
		for i := 1; i < 3+spare; i++ {
			if i >= 3 {
				busyOnes = append(busyOnes, b.connect())
			}
			busyOnes[i].send("GET", "/hanging")
			<-h.arrived
		}
		last := b.connect()
		synctest.Wait()
		assert.Assert(t, last.isClosed())
		close(h.release)
		for _, c := range busyOnes {
			_, text := c.receive()
			assert.Equal(t, text, "done")
		}
	})
}

// Contract section 4: a head has at most 32 KiB, and while it is not complete 512 lines. Both get 431. Lines of a body do not count.
func TestHeadLimits(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	o := newOptions()
	o.Proxy = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, len(r.Header))
	})
	s := New(o)
	go s.http.Serve(&plainListener{TCPListener: listener.(*net.TCPListener), warn: func() {}})
	t.Cleanup(func() { s.http.Close() })
	lines := func(n int) (text string) {
		for i := range n {
			text += fmt.Sprintf("X%d:\r\n", i)
		}
		return text
	}
	const body = "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 60000\r\n\r\n"
	for _, tt := range []struct {
		name, send string
		status     int
	}{
		{"31 KiB", "GET / HTTP/1.1\r\nHost: p\r\nX: " + strings.Repeat("x", 31<<10) + "\r\n\r\n", 200},
		{"33 KiB", "GET / HTTP/1.1\r\nHost: p\r\nX: " + strings.Repeat("x", 33<<10) + "\r\n\r\n", 431},
		{"33 KiB in many lines", "GET / HTTP/1.1\r\nHost: p\r\n" + strings.Repeat("X: "+strings.Repeat("x", 1019)+"\r\n", 33) + "\r\n", 431},
		{"500 lines", "GET / HTTP/1.1\r\nHost: p\r\n" + lines(500) + "\r\n", 200},
		{"600 lines that do not end", "GET / HTTP/1.1\r\nHost: p\r\n" + lines(600), 431},
		{"a body of lines", body + strings.Repeat("x\n", 30000), 200},
		{"a second head of 600 lines", "GET / HTTP/1.1\r\nHost: p\r\n" + lines(600), 431},
		{"a second body of lines whose head came with the first request", strings.Repeat("x\n", 29500), 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", listener.Addr().String())
			assert.NilError(t, err)
			defer conn.Close()
			c := &client{t, conn, bufio.NewReader(conn)}
			if strings.HasPrefix(tt.name, "a second") {
				first := "GET / HTTP/1.1\r\nHost: p\r\n\r\n"
				if tt.status == 200 {
					first += body + strings.Repeat("x\n", 500)
				}
				c.write(first)
				c.receive()
			}
			go io.WriteString(conn, tt.send)
			resp, err := http.ReadResponse(c.in, nil)
			assert.NilError(t, err)
			assert.Equal(t, resp.StatusCode, tt.status)
		})
	}
}

// Row 3.7: a client that reads nothing of /metrics is disconnected after 30 s.
func TestUnreadMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOptions()
		failed := make(chan time.Duration, 1)
		o.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			start, err := time.Now(), error(nil)
			for err == nil {
				_, err = w.Write(make([]byte, 8<<10))
			}
			failed <- time.Since(start)
		})
		b := startIn(t, o)
		b.connect().send("GET", "/metrics")
		assert.Equal(t, <-failed, 30*time.Second)
	})
}

// Contract section 4: a body that never comes holds neither a connection nor a scrape for ever.
func TestBodyOfOwnPathsThatNeverComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startIn(t, newOptions())
		for head, status := range map[string]int{"GET /metrics": 200, "GET /health": 200, "POST /health": 405} {
			c := b.connect()
			c.write(head + " HTTP/1.1\r\nHost: p\r\nContent-Length: 1\r\n\r\n")
			resp, _ := c.receive()
			assert.Equal(t, resp.StatusCode, status)
		}
		synctest.Wait()
		assert.Equal(t, b.Server.conns.busy, 0)
	})
}

// Contract section 8: clients that speak TLS cause at most one warning a minute.
func TestTLSWarningIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOptions()
		var log bytes.Buffer
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := New(o)
		for _, tt := range []struct {
			wait  time.Duration
			lines int
		}{{0, 1}, {0, 1}, {59 * time.Second, 1}, {time.Second, 2}, {time.Second, 2}, {time.Hour, 3}} {
			time.Sleep(tt.wait)
			s.warnTLS()
			assert.Equal(t, strings.Count(log.String(), "\n"), tt.lines)
		}
	})
}
