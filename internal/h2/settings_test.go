package h2

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// A connection is of use when the peer's SETTINGS have come, and they are valid and allow a stream.
func TestFirstFrame(t *testing.T) {
	for name, test := range map[string]struct {
		say  func(p *peer)
		want error
		said string // after the preface
	}{
		"a PING":                     {func(p *peer) { p.out.WritePing(false, [8]byte{}) }, ErrMalformed, "GOAWAY PROTOCOL_ERROR, EOF"},
		"an acknowledgment":          {func(p *peer) { p.out.WriteSettingsAck() }, ErrMalformed, "GOAWAY PROTOCOL_ERROR, EOF"},
		"a malformed header section": {func(p *peer) { p.headers(1, "Bad: x") }, ErrMalformed, "GOAWAY PROTOCOL_ERROR, EOF"},
		"HTTP/1.1":                   {func(p *peer) { fmt.Fprint(p.net, "HTTP/1.1 400 Bad Request\r\n\r\n") }, ErrMalformed, "GOAWAY FRAME_SIZE_ERROR, EOF"},
		"invalid settings":           {func(p *peer) { p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) }, ErrMalformed, "GOAWAY PROTOCOL_ERROR, EOF"},
		"nothing":                    {func(p *peer) { time.Sleep(time.Second); p.net.Close() }, ErrClosed, "EOF"},
		"no streams": {func(p *peer) { p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}) },
			ErrNoStreams, "SETTINGS ack, GOAWAY NO_ERROR, EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				p := newPeer(theirs)
				var over *conn
				go test.say(p)
				c, err := newConn(newPipeEnd(ours), options, func(c *conn) { over = c })
				assert.ErrorIs(t, err, test.want)
				assert.Assert(t, c == nil)
				said := strings.Join(p.take(), ", ")
				assert.Assert(t, strings.HasSuffix(said, test.said), "%s", said)
				assert.Assert(t, over != nil)
			})
		})
	}
}

// SETTINGS count when they come; what follows them in one frame replaces what came before.
func TestSettings(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		p.out.WriteSettings(
			http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 15},
			http2.Setting{ID: 0x1234, Val: 7},
			http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14},
			http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		)
		assert.DeepEqual(t, p.take(), []string{"SETTINGS ack"})
		send(tr, "POST", strings.Repeat("x", 20_000))
		assert.DeepEqual(t, p.take(), []string{"HEADERS 1", "DATA 1 16384", "DATA 1 3616 end"})
		p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1})
		p.out.WriteSettingsAck()
		assert.DeepEqual(t, p.take(), []string{"SETTINGS ack"})
		p.out.WriteSettings()
		assert.DeepEqual(t, p.take(), []string{"SETTINGS ack"})
	})
}

// No more streams than the peer allows at the time are open on a connection, nor more than ours.
func TestMaxConcurrentStreams(t *testing.T) {
	allow := func(t *testing.T, p *peer, n uint32) {
		p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: n})
		assert.DeepEqual(t, p.take(), []string{"SETTINGS ack"})
	}
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		next := join(t, tr)
		takes := func(q *peer, stream uint32) {
			t.Helper()
			synctest.Wait() // what was said before has been heard
			get(tr)
			assert.DeepEqual(t, q.take(), []string{fmt.Sprintf("HEADERS %d end", stream)})
		}
		takes(p, 1)
		takes(p, 3)
		takes(next, 1)
		allow(t, p, 1) // two are open already
		takes(next, 3)
		p.headersEnd(1, ":status: 200")
		takes(next, 5)
		p.headersEnd(3, ":status: 200")
		takes(p, 5)
		allow(t, p, 0)
		p.headersEnd(5, ":status: 200")
		takes(next, 7)
		allow(t, p, 1<<32-1)
		for i := range uint32(maxStreams) {
			takes(p, 7+2*i)
		}
		takes(next, 9)
		p.out.WriteRSTStream(7, http2.ErrCodeCancel)
		takes(p, 7+2*maxStreams)
	}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
}

// Long header sections are cut into frames as large as the peer takes.
func TestContinuation(t *testing.T) {
	for name, test := range map[string]struct {
		size  int
		frame uint32
		want  []string
	}{
		"one":     {16000, 1 << 14, []string{"HEADERS 1 end"}},
		"three":   {40000, 1 << 14, []string{"HEADERS 1 end more", "CONTINUATION 1 more", "CONTINUATION 1"}},
		"larger":  {40000, 1 << 15, []string{"HEADERS 1 end more", "CONTINUATION 1"}},
		"largest": {16000, 1<<24 - 1, []string{"HEADERS 1 end"}},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				value := strings.Repeat("@", test.size) // 13 bits each in Huffman's code, so sent as it is
				x := send(tr, "GET", "", "X-Long: "+value)
				assert.DeepEqual(t, p.take(), test.want)
				assert.DeepEqual(t, p.field(1, "x-long"), []string{value})
				p.headersEnd(1, ":status: 200")
				assert.Equal(t, x.outcome(t), "200 [] EOF")
			}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: test.frame})
		})
	}
}

// The peer says how large the table of header compression may be.
func TestHeaderTableSize(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		next := uint32(1)
		request := func() (size int) {
			t.Helper()
			before := p.sizes
			x := send(tr, "GET", "", "X-Repeated: "+strings.Repeat("0", 100))
			assert.DeepEqual(t, p.take(), []string{fmt.Sprintf("HEADERS %d end", next)})
			assert.DeepEqual(t, p.field(next, "x-repeated"), []string{strings.Repeat("0", 100)})
			p.headersEnd(next, ":status: 200")
			assert.Equal(t, x.outcome(t), "200 [] EOF")
			next += 2
			return p.sizes - before
		}
		table := func(sizes ...uint32) {
			var settings []http2.Setting
			for _, size := range sizes {
				settings = append(settings, http2.Setting{ID: http2.SettingHeaderTableSize, Val: size})
			}
			p.decoder.SetAllowedMaxDynamicTableSize(sizes[len(sizes)-1])
			p.out.WriteSettings(settings...)
			p.take()
		}
		full := request()
		assert.Assert(t, request() < 20)
		table(0)
		assert.Assert(t, request() >= full-30)
		assert.Assert(t, request() >= full-30)
		table(1 << 20) // more than ours
		request()
		assert.Assert(t, request() < 20)
		table(0, 4096) // which empties it
		assert.Assert(t, request() > 70)
		assert.Assert(t, request() < 20)
	})
}
