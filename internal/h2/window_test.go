package h2

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// updates adds up the window updates of a stream among frames.
func updates(frames []string, stream uint32) (sum int) {
	for _, f := range frames {
		var id uint32
		var n int
		if c, _ := fmt.Sscanf(f, "WINDOW_UPDATE %d %d", &id, &n); c == 2 && id == stream {
			sum += n
		}
	}
	return sum
}

// What has been read is given back to the stream's window, padding too, and what has not is not.
func TestWindow(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := get(tr)
		p.take()
		p.headers(1, ":status: 200")
		for range 4 {
			p.data(1, strings.Repeat("x", 16000)) // 64000 of 65535
		}
		assert.Equal(t, len(p.take()), 0)
		x.read(t)
		given := updates(p.take(), 1)
		assert.Assert(t, given > 32000 && given <= 64000, "%d", given)
		for range 1000 {
			p.out.WriteDataPadded(1, false, []byte{'x'}, make([]byte, 98)) // 100 with the length of the padding
			given += updates(p.take(), 1)
		}
		assert.Assert(t, given > 64000+100000-32768 && given <= 64000+100000, "%d", given)
		p.dataEnd(1, "")
		synctest.Wait()
		assert.Equal(t, len(x.got), 65000)
		assert.Equal(t, len(p.take()), 0)
	})
}

// A peer that sends more than the window allows is told so, and what came before is still read.
func TestWindowExceeded(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := get(tr)
		p.take()
		other := get(tr)
		p.take()
		p.headers(1, ":status: 200")
		for range 4 {
			p.data(1, strings.Repeat("x", 16383)) // 65532 of 65535
		}
		p.data(1, "xxx")
		assert.Equal(t, len(p.take()), 0)
		p.data(1, "")
		assert.Equal(t, len(p.take()), 0)
		p.data(1, "x")
		assert.DeepEqual(t, p.take(), []string{"RST_STREAM 1 FLOW_CONTROL_ERROR"})
		x.read(t)
		assert.Equal(t, len(x.got), 65535)
		assert.ErrorIs(t, x.ended, ErrMalformed)
		p.headersEnd(3, ":status: 200")
		assert.Equal(t, other.outcome(t), "200 [] EOF")
	})
}

// A thousand streams that nobody reads do not hold up another one, nor cost more than their windows.
func TestUnreadStreams(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		const unread = maxStreams - 1
		for range unread {
			get(tr)
			synctest.Wait()
		}
		for i := range uint32(unread) {
			p.headers(1+2*i, ":status: 200")
			for range 1024 {
				p.data(1+2*i, strings.Repeat("x", 64)[:64-i%2]) // pieces as small as events
			}
		}
		x := get(tr)
		p.take()
		p.headers(2*unread+1, ":status: 200")
		x.read(t)
		for range 100 {
			p.data(2*unread+1, strings.Repeat("x", 10000))
			synctest.Wait()
		}
		assert.Equal(t, len(x.got), 1000000)
		for _, s := range tr.conns[0].streams {
			assert.Assert(t, cap(s.buf) <= 96<<10, "%d", cap(s.buf))
		}
	}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000})
}

// A reader that is always a little behind costs no more than one that does not read at all.
func TestSlowReader(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := get(tr)
		p.take()
		p.headers(1, ":status: 200")
		synctest.Wait()
		var sent, got bytes.Buffer
		window := 65535
		buf := make([]byte, 3000)
		for i := range 2000 {
			if piece := min(window, 5000); piece > 0 {
				text := strings.Repeat(string(rune('a'+i%26)), piece)
				sent.WriteString(text)
				p.data(1, text)
				window -= piece
				synctest.Wait()
			}
			n, err := x.resp.Body.Read(buf)
			assert.NilError(t, err)
			got.Write(buf[:n])
			window += updates(p.take(), 1)
			assert.Assert(t, got.Len() < sent.Len()) // else there is nothing left over
		}
		size := cap(tr.conns[0].streams[1].buf)
		assert.Assert(t, size <= 128<<10, "%d bytes of memory for a window of 64 KiB", size)
		assert.Assert(t, bytes.HasPrefix(sent.Bytes(), got.Bytes()))
	})
}

// What comes for streams that are over counts for the connection's window, or it would run out.
func TestConnectionWindow(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := get(tr)
		p.take()
		x.cancel(nil)
		p.take()
		tr.conns[0].unread = connWindow/2 - 300
		p.out.WriteDataPadded(1, false, make([]byte, 100), make([]byte, 199))
		assert.DeepEqual(t, p.take(), []string{"WINDOW_UPDATE 0 536870912"})
		p.data(1, "x")
		assert.Equal(t, len(p.take()), 0)
		assert.Equal(t, tr.conns[0].unread, int64(1))
	})
}
