package h2

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// A peer that has vanished is noticed by every request that waits for it, whatever it waits for.
func TestPeerVanishes(t *testing.T) {
	for name, deaf := range map[string]bool{"and nothing can be written": true, "and nobody answers": false} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				waiting := get(tr)
				p.take()
				streaming := get(tr)
				p.take()
				uploading := send(tr, "POST", strings.Repeat("x", 70_000))
				p.take()
				p.headers(3, ":status: 200")
				p.data(3, "hello")
				streaming.read(t)
				if deaf {
					p.jam()
					defer p.listenAgain()
				}
				begun := time.Now()
				time.Sleep(options.PingAfter - time.Nanosecond)
				said := p.take()
				assert.Assert(t, deaf || len(said) == 0, "%s", said)
				time.Sleep(time.Nanosecond)
				said = p.take()
				assert.Assert(t, deaf || len(said) == 1 && said[0] == "PING", "%s", said)
				time.Sleep(options.PingTimeout - time.Nanosecond)
				synctest.Wait()
				assert.Assert(t, !waiting.done && !uploading.done && streaming.ended == nil)
				assert.Assert(t, !tr.conns[0].isOver())
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				assert.ErrorIs(t, waiting.err, ErrDead)
				assert.ErrorIs(t, uploading.err, ErrDead)
				assert.ErrorIs(t, streaming.ended, ErrDead)
				assert.Equal(t, time.Since(begun), options.PingAfter+options.PingTimeout)
				assert.Equal(t, len(tr.conns), 0)
			})
		})
	}
}

// Whatever comes is a sign of life, and the answer to a PING too; asking goes on.
func TestPing(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := get(tr)
		p.take()
		for range 20 { // without a word it would be over after three
			time.Sleep(options.PingAfter - time.Second)
			assert.Equal(t, len(p.take()), 0)
			p.out.WriteWindowUpdate(1, 1)
		}
		for range 20 {
			time.Sleep(options.PingAfter)
			assert.DeepEqual(t, p.take(), []string{"PING"})
			time.Sleep(options.PingTimeout - time.Nanosecond)
			p.out.WritePing(true, [8]byte{})
			synctest.Wait()
		}
		p.headersEnd(1, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
	})
}

// A connection that nobody uses is closed after IdleTimeout, with a word, and no request gets it at that moment.
func TestIdle(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		answering := func(d time.Duration) (said []string) {
			for range d / time.Second {
				time.Sleep(time.Second)
				for _, f := range p.take() {
					if f == "PING" {
						p.out.WritePing(true, [8]byte{})
					} else {
						said = append(said, f)
					}
				}
			}
			return said
		}
		assert.Equal(t, len(answering(options.IdleTimeout-time.Second)), 0)
		x := get(tr)
		assert.DeepEqual(t, answering(2*options.IdleTimeout), []string{"HEADERS 1 end"}) // with a stream it is not idle
		p.headersEnd(1, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
		assert.Equal(t, len(answering(options.IdleTimeout-time.Second)), 0)
		assert.Assert(t, tr.hasConn())
		assert.DeepEqual(t, answering(time.Second), []string{"GOAWAY NO_ERROR", "EOF"})
		assert.Assert(t, !tr.hasConn())
	})
}

func TestCloseIdleConnections(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := get(tr)
		p.take()
		idle := join(t, tr)
		tr.CloseIdleConnections()
		tr.CloseIdleConnections()
		assert.DeepEqual(t, idle.take(), []string{"GOAWAY NO_ERROR", "EOF"})
		p.headersEnd(1, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
		assert.Equal(t, len(tr.conns), 1)
	})
}

// A peer that does not even read the last word does not keep a connection open.
func TestIdleAndDeaf(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		p.jam()
		defer p.listenAgain()
		tr.CloseIdleConnections()
		time.Sleep(2 * lastWords)
		synctest.Wait()
		assert.Equal(t, countGoroutines(), 1) // the peer's
	})
}

// A connection on which the peer says nothing at all is given up.
func TestSettingsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		p := newPeer(theirs)
		begun := time.Now()
		rt := New(&http.Transport{}, options).adopt(newPipeEnd(ours))
		assert.ErrorIs(t, rt.(interface{ RoundTripErr() error }).RoundTripErr(), ErrDead)
		assert.Equal(t, time.Since(begun), options.SettingsTimeout)
		assert.DeepEqual(t, p.take(), []string{"SETTINGS", "WINDOW_UPDATE 0 1073676289", "EOF"})
	})
}

// When a request is given up on a connection that has been silent since it began, the next one does not take its chances
// there before a sign of life.
func TestDoubt(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		next := join(t, tr)
		other := get(tr)
		p.take()
		time.Sleep(time.Second)
		x := get(tr)
		p.take()
		time.Sleep(doubtAfter + time.Second)
		x.cancel(errors.New("enough"))
		assert.DeepEqual(t, p.take(), []string{"RST_STREAM 3 CANCEL", "PING"})
		get(tr)
		assert.DeepEqual(t, next.take(), []string{"HEADERS 1 end"})
		p.out.WritePing(true, [8]byte{})
		synctest.Wait()
		get(tr)
		assert.DeepEqual(t, p.take(), []string{"HEADERS 5 end"})
		p.headersEnd(1, ":status: 200")
		assert.Equal(t, other.outcome(t), "200 [] EOF")
	})
}

// There is no doubt about a connection on which something came meanwhile, or on which there was hardly time for it.
func TestNoDoubt(t *testing.T) {
	for name, test := range map[string]struct {
		wait time.Duration
		say  func(p *peer)
	}{
		"soon given up":  {doubtAfter, func(p *peer) {}},
		"others go well": {10 * time.Second, func(p *peer) { p.out.WriteWindowUpdate(0, 1) }},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				x := get(tr)
				p.take()
				time.Sleep(time.Millisecond)
				test.say(p)
				synctest.Wait()
				time.Sleep(test.wait - time.Millisecond)
				x.cancel(errors.New("enough"))
				synctest.Wait()
				get(tr)
				said := strings.Join(p.take(), ", ")
				assert.Assert(t, strings.HasSuffix(said, "RST_STREAM 1 CANCEL, HEADERS 3 end"), "%s", said)
			})
		})
	}
}

// A connection in doubt that stays silent is given up, and its streams with it.
func TestDoubtConfirmed(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		other := get(tr)
		p.take()
		time.Sleep(time.Second)
		x := get(tr)
		p.take()
		time.Sleep(2 * time.Second)
		x.cancel(errors.New("enough"))
		synctest.Wait()
		time.Sleep(options.PingAfter + options.PingTimeout)
		synctest.Wait()
		assert.ErrorIs(t, other.err, ErrDead)
	})
}
