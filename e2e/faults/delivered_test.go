package faults

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// An answer of which the last byte was handed to its client is complete, however soon the client then closes (contract section 5).
func TestDelivered(t *testing.T) {
	t.Parallel()
	const goroutines, each = 8, 150
	for _, protocol := range []struct {
		name  string
		http1 bool
	}{{"HTTP/1.1", true}, {"HTTP/2", false}} {
		for _, answer := range []struct {
			name string
			part standin.Part
			last string // of what the client reads before it closes
		}{
			{"with a length", standin.Part{Size: 2000}, string(standin.Content(1999)[:1])},
			{"in chunks", standin.Part{Events: 3}, "\r\n0\r\n\r\n"},
		} {
			t.Run(protocol.name+"/"+answer.name, func(t *testing.T) {
				t.Parallel()
				_, up := newStandin(t, standin.Options{HTTP1: protocol.http1})
				w := newWorld(t, up)
				together(goroutines, each, func() {
					c := w.begin("POST", answer.part.String(), "Content-Length: 2", "{}")
					defer c.Close()
					c.untilLast(answer.part.Size, answer.last)
				})
				w.served(goroutines * each)
			})
		}
	}
}

// The same for sure: the client has left when the upstream says that the last byte was the last.
func TestDeliveredBeforeTheEnd(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	left := make(chan struct{})
	up.on("/answer", func(s *h2stream) {
		s.whole()
		s.head(":status", "200", "content-length", fmt.Sprint(len(event)))
		s.send(event)
		s.pause(left)
		s.finish("")
	})
	w := watch(t, up)
	c := w.open("/answer")
	c.Close()
	logged := w.logged("/answer")
	close(left)
	assert.Equal(t, logged["outcome"], "complete")
	w.book(logged)
	w.undisturbed()
}

// untilLast reads an answer as it is on the wire, up to its last byte.
func (c *conn) untilLast(size int64, last string) {
	var got []byte
	buf := make([]byte, 4096)
	for {
		c.SetReadDeadline(time.Now().Add(patience))
		n, err := c.in.Read(buf)
		if err != nil {
			c.t.Errorf("%v after %q", err, got)
			return
		}
		got = append(got, buf[:n]...)
		_, body, _ := bytes.Cut(got, []byte("\r\n\r\n"))
		if bytes.HasSuffix(body, []byte(last)) && int64(len(body)) >= size {
			return
		}
	}
}
