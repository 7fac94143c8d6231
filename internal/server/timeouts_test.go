package server

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// Contract section 4: a client that has not finished its header section after 10 s is disconnected, whether it sends
// nothing, stops in the middle, or sends byte by byte. The handler is never called.
func TestHeaderDeadline(t *testing.T) {
	for name, talk := range map[string]func(c *client, done *sync.WaitGroup){
		"silent": func(c *client, _ *sync.WaitGroup) {},
		"stops":  func(c *client, _ *sync.WaitGroup) { c.write("GET / HTTP/1.1\r\nHost: proxy.test\r\n") },
		"drips": func(c *client, done *sync.WaitGroup) {
			c.write("GET / HTTP/1.1\r\nHost: proxy.test\r\nX-Slow: ")
			done.Go(func() {
				for {
					time.Sleep(time.Second)
					if _, err := io.WriteString(c, "x"); err != nil {
						return
					}
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOptions()
				o.Proxy = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("an unfinished request was handled") })
				c := startIn(t, o).connect()
				start := time.Now()
				var done sync.WaitGroup
				talk(c, &done)
				c.closedAfter()
				assert.Equal(t, time.Since(start), 10*time.Second)
				done.Wait()
			})
		})
	}
}

// Contract section 4: the same for the second request on a connection, from its first byte. Between two requests a connection may be idle
// for minutes.
func TestHeaderDeadlineOnKeptConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startIn(t, newOptions()).connect()
		c.get("/first")
		time.Sleep(5 * time.Minute)
		resp, body := c.get("/second")
		assert.Equal(t, resp.StatusCode, http.StatusOK)
		assert.Equal(t, body, "proxied /second")
		time.Sleep(5 * time.Minute)
		c.write("GET /third HTTP/1.1\r\n")
		assert.Equal(t, c.closedAfter(), 10*time.Second)
	})
}

// Contract section 4: there is no deadline on a whole request or a whole response, if the proxy sets its own.
func TestNoDeadlineOnBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOptions()
		o.Proxy = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).SetReadDeadline(time.Time{})
			_, err := io.Copy(w, r.Body)
			assert.Check(t, err)
			for range 10 {
				io.WriteString(w, "event\n")
				http.NewResponseController(w).Flush()
				time.Sleep(time.Hour)
			}
			assert.Check(t, r.Context().Err())
		})
		c := startIn(t, o).connect()
		for _, body := range []string{"0123456789", ""} {
			c.write(fmt.Sprintf("POST / HTTP/1.1\r\nHost: proxy.test\r\nContent-Length: %d\r\n\r\n", len(body)))
			for _, b := range body {
				time.Sleep(time.Hour)
				c.write(string(b))
			}
			start := time.Now()
			_, text := c.receive()
			assert.Equal(t, text, body+strings.Repeat("event\n", 10))
			assert.Equal(t, time.Since(start), 10*time.Hour)
		}
	})
}
