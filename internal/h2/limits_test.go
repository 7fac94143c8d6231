package h2

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// A peer that asks without end and does not read the answers is given up before they cost much.
func TestFloods(t *testing.T) {
	for name, say := range map[string]func(p *peer) error{
		"PING":     func(p *peer) error { return p.out.WritePing(false, [8]byte{}) },
		"SETTINGS": func(p *peer) error { return p.out.WriteSettings() },
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				c := tr.conns[0]
				x := get(tr)
				p.take()
				p.deafen()
				defer p.listenAgain()
				n := 0
				for say(p) == nil && n < 10*acksAhead {
					n++
				}
				assert.Assert(t, n > acksAhead/2 && n < 2*acksAhead, "%d", n)
				time.Sleep(lastWords)
				synctest.Wait()
				assert.ErrorIs(t, x.err, ErrMalformed)
				assert.Assert(t, c.out.Cap()+c.spare.Cap() < 1<<20)
			})
		})
	}
}

// A peer that reads the answers may ask as often as it likes.
func TestManyPings(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		for range 3 {
			for range acksAhead {
				p.out.WritePing(false, [8]byte{})
			}
			assert.Equal(t, strings.Count(strings.Join(p.take(), ","), "PING ack"), acksAhead)
		}
		x := get(tr)
		p.take()
		p.headersEnd(1, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
	})
}

// Header sections that are too large end their stream and no other, however they are sent.
func TestHugeHeaders(t *testing.T) {
	for name, fields := range map[string]int{"the largest allowed": 9_995, "a field more than that": 9_996, "many more": 20_000} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				x := get(tr)
				p.take()
				other := get(tr)
				p.take()
				p.headers(3, ":status: 200")
				p.data(3, "hel")
				other.read(t)
				lines := []string{":status: 200"} // 42 octets as RFC 9113 counts
				lines = append(lines, "x-rest: "+strings.Repeat("x", maxHeaderBytes-42-38-9_995*104))
				for range fields {
					lines = append(lines, "x-field: "+strings.Repeat("x", 65)) // 104
				}
				block := p.encode(lines...)
				p.out.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:10]})
				for block = block[10:]; len(block) > 16000; block = block[16000:] {
					p.out.WriteContinuation(1, false, block[:16000])
				}
				p.out.WriteContinuation(1, true, block)
				said := strings.Join(p.take(), ", ")
				if fields == 9_995 {
					assert.Equal(t, said, "")
					assert.NilError(t, x.err)
					assert.Equal(t, len(x.resp.Header["X-Field"]), fields)
				} else {
					assert.Equal(t, said, "RST_STREAM 1 PROTOCOL_ERROR")
					assert.ErrorIs(t, x.err, ErrMalformed)
				}
				p.dataEnd(3, "lo")
				synctest.Wait()
				assert.Equal(t, string(other.got), "hello")
			})
		})
	}
}

// Interim responses that nobody takes do not pile up, and those that somebody takes have no end.
func TestInterimFlood(t *testing.T) {
	link := "link: " + strings.Repeat("x", 10_000)
	t.Run("taken", func(t *testing.T) {
		scripted(t, func(t *testing.T, tr *Transport, p *peer) {
			n := 0
			x := interimTo(tr, func(int, http.Header) error { n++; return nil })
			p.take()
			for range 300 {
				p.headers(1, ":status: 103", link)
				synctest.Wait()
			}
			p.headersEnd(1, ":status: 200")
			assert.Equal(t, x.outcome(t), "200 [] EOF")
			assert.Equal(t, n, 300)
		})
	})
	t.Run("not taken", func(t *testing.T) {
		scripted(t, func(t *testing.T, tr *Transport, p *peer) {
			taken := make(chan struct{})
			x := interimTo(tr, func(int, http.Header) error { <-taken; return nil })
			p.take()
			for range 300 {
				p.headers(1, ":status: 103", link)
			}
			assert.DeepEqual(t, p.take(), []string{"RST_STREAM 1 PROTOCOL_ERROR"})
			close(taken)
			synctest.Wait()
			assert.ErrorIs(t, x.err, ErrMalformed)
		})
	})
}

// Names that are remembered are few and short, whoever sends them.
func TestNames(t *testing.T) {
	m := names{}
	for i := range 10_000 {
		m.get(fmt.Sprint("x-", i), strings.ToUpper)
	}
	assert.Equal(t, len(m), maxNames)
	m = names{}
	long := strings.Repeat("x", 1000)
	assert.Equal(t, m.get(long, strings.ToUpper), strings.ToUpper(long))
	assert.Equal(t, len(m), 0)
	assert.Equal(t, m.get("content-type", http.CanonicalHeaderKey), "Content-Type")
	assert.Equal(t, m.get("content-type", nil), "Content-Type")
}

// A connection that is stuck in writing takes no more requests than a limit of memory allows.
func TestStuckWriter(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		c := tr.conns[0]
		next := join(t, tr)
		p.jam()
		defer p.listenAgain()
		for range 60 { // 3.6 MB
			send(tr, "GET", "", "X-Large: "+strings.Repeat("@", 60_000))
			synctest.Wait()
		}
		assert.Assert(t, c.out.Len() < 2*headersAhead, "%d", c.out.Len())
		assert.Assert(t, len(next.take()) > 30)
	})
}
