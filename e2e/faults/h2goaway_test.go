package faults

import (
	"fmt"
	"testing"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// After GOAWAY, requests that the connection still answers get their answers. Requests that it has not processed are sent again on
// another one. The proxy closes the connection after its last answer.
func TestH2GoAway(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	w := watch(t, up)
	left := make(chan struct{})
	up.follow("/waiting", script{late: true, until: left})
	up.follow("/streaming", script{until: left})
	up.on("/refused", func(s *h2stream) {
		if s.whole(); s.nth > 2 {
			s.head(":status", "200")
			s.finish(s.body.String())
		} // else it never answers
	})
	waiting := w.post("/waiting", "{}")
	up.arrives("/waiting", 1)
	streaming := w.open("/streaming")
	up.arrives("/streaming", 1)
	last := up.all("/streaming")[0]
	refused := w.post("/refused", "a body that is sent twice")
	up.arrives("/refused", 1)

	last.goAway(1<<31-1, http2.ErrCodeNo) // RFC 9113 section 6.8: first announced, then final
	w.ended(w.post("/on-a-third", ""), answered)
	last.goAway(last.id, http2.ErrCodeNo)
	w.ended(refused, answered)
	assert.Equal(t, refused.body.String(), "a body that is sent twice")
	assert.Equal(t, up.requests("/refused"), 2)
	close(left)
	w.ended(waiting, answered)
	w.ended(streaming, answered)
	assert.Assert(t, up.reaches("the proxy closes the connection", func() bool { return last.over }))
	assert.Equal(t, up.connections(), 3)
	w.undisturbed()
}

// A request that is proven unprocessed is sent again with its whole body, even if half of it had been sent. This does not count as an
// attempt.
func TestH2UploadRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		refuse func(s *h2stream)
	}{
		{"GOAWAY", func(s *h2stream) { s.goAway(s.id-2, http2.ErrCodeNo) }},
		{"GOAWAY, then FIN", func(s *h2stream) { s.goAway(s.id-2, http2.ErrCodeNo); s.fin() }},
		{"GOAWAY with an error, then FIN", func(s *h2stream) { s.goAway(s.id-2, http2.ErrCodeEnhanceYourCalm); s.fin() }},
		{"REFUSED_STREAM", func(s *h2stream) { s.abandon(http2.ErrCodeRefusedStream) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			text := upload(300 << 10)
			up.on("/upload", func(s *h2stream) {
				if up.requests("/upload") == 1 {
					s.unread()
					tt.refuse(s)
					return
				}
				s.whole()
				s.head(":status", "200")
				s.finish(fmt.Sprint(s.body.String() == text))
			})
			w := watch(t, up)
			w.ended(w.post("/before", ""), answered) // so that the GOAWAY can name a lower stream
			c := w.post("/upload", text)
			_, logged := w.ended(c, answered)
			assert.Equal(t, logged["attempts"], 1.0)
			assert.Equal(t, c.body.String(), "true")
			assert.Equal(t, up.requests("/upload"), 2)
			w.undisturbed()
		})
	}
}

// An upload whose window stays shut does not delay other requests on its connection. At its timeout the attempt ends.
func TestH2UploadBlocked(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	up.on("/blocked", func(s *h2stream) {
		if up.requests("/blocked") == 1 {
			s.unread()
			s.gone()
			return
		}
		s.whole() // the second attempt succeeds
		s.last(":status", "200")
	})
	w := watch(t, up, "timeout_secs = 2", "retries = 1")
	c := w.post("/blocked", upload(300<<10))
	up.arrives("/blocked", 1)
	for range 3 {
		w.ended(w.post("/small", "{}"), answered)
	}
	_, logged := w.ended(c, answered)
	assert.Equal(t, logged["attempts"], 2.0)
	assert.Equal(t, up.requests("/blocked"), 2)
	w.undisturbed()
	assert.Equal(t, up.connections(), 2)
}

// An upstream may answer before it has read the whole request, and then refuse the rest of it (RFC 9113 section 8.1).
func TestH2EarlyAnswer(t *testing.T) {
	t.Parallel()
	const reason = `{"type":"error","error":{"type":"request_too_large"}}`
	for _, tt := range []struct {
		name   string
		answer func(s *h2stream)
		want   end
	}{
		{"413, then RST_STREAM NO_ERROR", func(s *h2stream) { s.finish(reason); s.abandon(http2.ErrCodeNo) }, answered},
		{"413 and no more windows", func(s *h2stream) { s.finish(reason); s.gone() }, answered},
		{"413, then an error within it", func(s *h2stream) { s.send(reason); s.abandon(http2.ErrCodeInternal) }, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			up.on("/upload", func(s *h2stream) {
				s.unread()
				s.head(":status", "413")
				tt.answer(s)
			})
			w := watch(t, up)
			c := w.post("/upload", upload(1<<20))
			w.ended(c, tt.want)
			assert.Equal(t, c.res.StatusCode, 413)
			assert.Equal(t, c.body.String(), reason)
			w.reaches("proxy_held_body_bytes", 0)
			w.undisturbed()
			assert.Equal(t, up.connections(), 2, "the connection must stay in use")
		})
	}
}
