package h2

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// A refused request is sent again, once, with its body.
func TestRefused(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := send(tr, "POST", "hello")
		p.take()
		first := x.sent
		p.out.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		assert.DeepEqual(t, p.take(), []string{"HEADERS 3", "DATA 3 5 end"})
		assert.Equal(t, string(p.body[3]), "hello")
		p.headersEnd(3, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
		assert.Assert(t, first != x.sent && first.isClosed() && x.sent.isClosed())
	})
}

func TestRefusedTwice(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := send(tr, "POST", "hello")
		p.take()
		p.out.WriteRSTStream(1, http2.ErrCodeRefusedStream)
		synctest.Wait()
		p.out.WriteRSTStream(3, http2.ErrCodeRefusedStream)
		synctest.Wait()
		assert.ErrorIs(t, x.err, ErrRefused)
		assert.Assert(t, x.sent.isClosed())
	})
}

// A request whose body cannot be had again is not sent again.
func TestRefusedWithoutBody(t *testing.T) {
	gone := errors.New("gone")
	for name, test := range map[string]struct {
		getBody func() (io.ReadCloser, error)
		want    error
	}{
		"no GetBody":    {nil, ErrRefused},
		"GetBody fails": {func() (io.ReadCloser, error) { return nil, gone }, gone},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				body := &reqBody{Reader: strings.NewReader("hello")}
				req, _ := http.NewRequest("POST", "https://upstream.example/", body)
				req.ContentLength, req.GetBody = 5, test.getBody
				x := (&exchange{}).send(tr, req)
				p.take()
				p.out.WriteRSTStream(1, http2.ErrCodeRefusedStream)
				assert.Equal(t, len(p.take()), 0)
				assert.ErrorIs(t, x.err, test.want)
				assert.Assert(t, body.isClosed())
			})
		})
	}
}

// What becomes of three requests, the third answered in part, on a connection that the peer closes. Those sent again are
// answered on the next connection.
func TestGoAway(t *testing.T) {
	const closed = "h2: the peer closed the connection"
	for name, test := range map[string]struct {
		goAway func(p *peer)
		want   []string
	}{
		"all processed": {func(p *peer) { p.out.WriteGoAway(5, http2.ErrCodeNo, nil) },
			[]string{"200 [] EOF", "200 [] EOF", "200 [] rest EOF"}},
		"announced only": {func(p *peer) { p.out.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil) },
			[]string{"200 [] EOF", "200 [] EOF", "200 [] rest EOF"}},
		"in two steps": {func(p *peer) {
			p.out.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
			p.out.WriteGoAway(1, http2.ErrCodeNo, nil)
		}, []string{"200 [] EOF", "299 [] EOF", "200 [] rest EOF"}},
		"none processed": {func(p *peer) { p.out.WriteGoAway(0, http2.ErrCodeNo, nil) },
			[]string{"299 [] EOF", "299 [] EOF", "200 [] rest EOF"}},
		"with an error code": {func(p *peer) { p.out.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte("calm down")) },
			[]string{"200 [] EOF", "299 [] EOF", "200 [] rest EOF"}},
		"and at once the end": {func(p *peer) { p.out.WriteGoAway(1, http2.ErrCodeInternal, nil); p.net.Close() },
			[]string{closed, "299 [] EOF", "200 [] " + closed}},
		"only the end": {func(p *peer) { p.net.Close() },
			[]string{closed, closed, "200 [] " + closed}},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				next := join(t, tr)
				x := []*exchange{get(tr)}
				synctest.Wait()
				x = append(x, get(tr))
				synctest.Wait()
				x = append(x, get(tr))
				assert.DeepEqual(t, p.take(), []string{"HEADERS 1 end", "HEADERS 3 end", "HEADERS 5 end"})
				p.headers(5, ":status: 200")
				test.goAway(p)
				p.take()
				for i, want := range test.want {
					if strings.HasPrefix(want, "299") {
						next.headersEnd(uint32(1+2*(strings.Count(strings.Join(test.want[:i], ""), "299"))), ":status: 299")
					}
				}
				synctest.Wait()
				if !x[0].done {
					p.headersEnd(1, ":status: 200")
				}
				if !x[1].done {
					p.headersEnd(3, ":status: 200")
				}
				p.dataEnd(5, "rest")
				for i, want := range test.want {
					assert.Check(t, x[i].outcome(t) == want, "%d: %s", i, x[i].outcome(t))
				}
				if said := p.take(); !strings.Contains(name, "end") { // it has no stream left, so it goes
					assert.DeepEqual(t, said, []string{"GOAWAY NO_ERROR", "EOF"})
				}
				assert.Equal(t, len(tr.conns), 1)
			})
		})
	}
}

// A connection that is to close takes no further requests, but finishes those it has.
func TestGoAwayKeepsOut(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		next := join(t, tr)
		x := send(tr, "POST", strings.Repeat("x", 70000))
		p.take()
		p.out.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil)
		synctest.Wait()
		y := get(tr)
		assert.DeepEqual(t, next.take(), []string{"HEADERS 1 end"})
		p.out.WriteWindowUpdate(1, 70000)
		p.out.WriteWindowUpdate(0, 70000)
		p.take()
		assert.Equal(t, len(p.body[1]), 70000)
		p.headersEnd(1, ":status: 200")
		next.headersEnd(1, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
		assert.Equal(t, y.outcome(t), "200 [] EOF")
		assert.DeepEqual(t, p.take(), []string{"GOAWAY NO_ERROR", "EOF"})
	})
}

// Many a GOAWAY is no more than one.
func TestGoAwayFlood(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		p.deafen()
		defer p.listenAgain()
		get(tr).cancel(nil) // HEADERS and RST_STREAM: the peer reads the first of them, and no further
		synctest.Wait()
		for range 100 {
			p.out.WriteGoAway(0, http2.ErrCodeNo, nil)
		}
		synctest.Wait()
		assert.Assert(t, countGoroutines() < 20, "%d goroutines", countGoroutines())
	})
}

// What was never handed to the network is sent again when the connection ends (contract row 2.6), and what was is not.
func TestUnwritten(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		next := join(t, tr)
		p.deafen()
		defer p.listenAgain()
		x := []*exchange{get(tr)}
		synctest.Wait() // the peer has read this one, and reads no more
		x = append(x, get(tr))
		synctest.Wait() // the connection is stuck in writing this one
		x = append(x, get(tr))
		synctest.Wait()
		p.net.Close()
		assert.DeepEqual(t, next.take(), []string{"HEADERS 1 end"})
		assert.Assert(t, x[0].err != nil && x[1].err != nil && !x[2].done)
	})
}

// The same on a connection on which nothing at all was written yet.
func TestUnwrittenOnNewConnection(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, next *peer) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go http2.NewFramer(theirs, nil).WriteSettings()
		_, ok := tr.adopt(ours).(adopted)
		assert.Assert(t, ok)
		synctest.Wait() // it is stuck in writing the preface
		tr.conns[0], tr.conns[1] = tr.conns[1], tr.conns[0]
		get(tr)
		synctest.Wait()
		theirs.Close()
		assert.DeepEqual(t, next.take(), []string{"HEADERS 1 end"})
	})
}

// A write that fails does not keep from reading what the peer has said before.
func TestWriteFails(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, next *peer) {
		ours, theirs := net.Pipe()
		end := newPipeEnd(ours)
		p := newPeer(theirs)
		go p.out.WriteSettings()
		_, ok := tr.adopt(end).(adopted)
		assert.Assert(t, ok)
		tr.conns[0], tr.conns[1] = tr.conns[1], tr.conns[0]
		x := get(tr)
		p.take()
		end.err.Store(errors.New("write: broken pipe"))
		y := get(tr)
		synctest.Wait()
		assert.Assert(t, !x.done && !y.done)
		p.headers(1, ":status: 200")
		p.out.WriteGoAway(1, http2.ErrCodeNo, nil)
		assert.DeepEqual(t, next.take(), []string{"HEADERS 1 end"})
		p.net.Close()
		synctest.Wait()
		assert.Equal(t, x.outcome(t), "200 [] write: broken pipe")
	})
}

// Stream ids are not used twice.
func TestIDsUsedUp(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		next := join(t, tr)
		tr.conns[0].nextID = 1<<31 - 1
		x := get(tr)
		assert.DeepEqual(t, p.take(), []string{"HEADERS 2147483647 end"})
		get(tr)
		assert.DeepEqual(t, next.take(), []string{"HEADERS 1 end"})
		p.headersEnd(1<<31-1, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
		assert.DeepEqual(t, p.take(), []string{"GOAWAY NO_ERROR", "EOF"})
	})
}
