package faults

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// A connection that says goodbye: what it still answers is answered, what it has not processed is sent again on another, and it is
// closed behind its last answer.
func TestH2GoAway(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	w := newH2World(t, up)
	leaving, left := make(chan struct{}), make(chan struct{})
	streams := make(chan *h2stream, 10)
	up.on("/waiting", func(s *h2stream) { // no headers until the goodbye
		streams <- s
		s.pause(left)
		s.stream()
		s.finish(event)
	})
	up.on("/streaming", func(s *h2stream) {
		s.stream()
		s.send(event)
		streams <- s
		s.pause(left)
		s.send(event)
		s.last("x-a", "1")
	})
	up.on("/refused", func(s *h2stream) {
		if s.nth == 2 {
			streams <- s
			s.pause(leaving)
			return // nothing will be said about this one
		}
		s.whole()
		s.head(":status", "200")
		s.finish(s.body.String())
	})
	waiting := w.post("/waiting", "{}")
	wait(t, streams, "the request arrives")
	streaming := w.open("/streaming")
	last := wait(t, streams, "the request arrives")
	refused := w.post("/refused", "a body that is sent twice")
	assert.Assert(t, wait(t, streams, "the request arrives").id > last.id)

	last.goAway(1<<31-1, http2.ErrCodeNo) // RFC 9113 section 6.8: first announced, then final
	w.ended(w.post("/on-a-third", ""), answered)
	close(leaving)
	last.goAway(last.id, http2.ErrCodeNo)
	w.ended(refused, answered)
	assert.Equal(t, refused.body.String(), "a body that is sent twice")
	assert.Equal(t, up.requests("/refused"), 2)
	close(left)
	w.ended(waiting, answered)
	w.ended(streaming, answered)
	assert.Equal(t, streaming.body.String(), event+event)
	assert.Assert(t, last.until("the proxy closes the connection", func() bool { return last.over }))
	assert.Equal(t, len(up.connections()), 3)
	w.undisturbed()
}

// What is proven unprocessed is sent again with all of its body, even if half of it had gone out.
func TestH2UploadRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		refuse func(s *h2stream)
	}{
		{"GOAWAY", func(s *h2stream) { s.goAway(s.id-2, http2.ErrCodeNo) }},
		{"GOAWAY, then FIN", func(s *h2stream) { s.goAway(s.id-2, http2.ErrCodeNo); s.fin() }},
		{"REFUSED_STREAM", func(s *h2stream) { s.abandon(http2.ErrCodeRefusedStream) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			up.tight = true
			up.on("/upload", func(s *h2stream) {
				if up.requests("/upload") == 1 {
					s.until("the window is full", func() bool { return s.body.Len() == 65535 })
					tt.refuse(s)
					return
				}
				s.grant(0, 1<<20)
				s.grant(s.id, 1<<20)
				s.whole()
				s.head(":status", "200")
				s.finish(fmt.Sprint(s.body.Len(), s.body.String() == upload(300<<10)))
			})
			w := newH2World(t, up)
			w.ended(w.post("/before", ""), answered) // so that a GOAWAY can leave a stream below
			c := w.post("/upload", upload(300<<10))
			_, logged := w.ended(c, answered)
			assert.Equal(t, logged["attempts"], 1.0)
			assert.Equal(t, c.body.String(), fmt.Sprint(300<<10, true))
			assert.Equal(t, up.requests("/upload"), 2)
			w.undisturbed()
		})
	}
}

// upload is a request body of n bytes in which no two places look alike.
func upload(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%x,", i*2654435761)
	}
	return b.String()[:n]
}

// A GOAWAY with an error that does not cover the stream proves the request unprocessed as well; whether that is trusted is up to the
// proxy. An answer that has begun is lost.
func TestH2GoAwayWithError(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	w := newH2World(t, up)
	up.on("/streaming", func(s *h2stream) {
		s.stream()
		s.send(event)
		s.whole()
	})
	up.on("/waiting", func(s *h2stream) {
		s.whole()
		if s.nth == 2 {
			s.goAway(0, http2.ErrCodeEnhanceYourCalm)
			s.fin()
			return
		}
		s.finishEmpty()
	})
	streaming := w.open("/streaming")
	w.ended(w.post("/waiting", "{}"), answered, failed)
	w.ended(streaming, broken)
	assert.Assert(t, up.requests("/waiting") <= 2)
	w.undisturbed()
}

// A connection that lives as long as no new request comes lets an upload finish.
func TestH2UploadDuringGoAway(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	up.tight = true
	up.on("/upload", func(s *h2stream) {
		s.until("the window is full", func() bool { return s.body.Len() == 65535 })
		s.goAway(s.id, http2.ErrCodeNo)
		s.grant(0, 1<<20)
		s.grant(s.id, 1<<20)
		s.whole()
		s.head(":status", "200")
		s.finish(fmt.Sprint(s.body.String() == upload(300<<10)))
	})
	w := newH2World(t, up)
	c := w.post("/upload", upload(300<<10))
	w.ended(c, answered)
	assert.Equal(t, c.body.String(), "true")
	assert.Equal(t, up.requests("/upload"), 1)
	w.undisturbed()
}
