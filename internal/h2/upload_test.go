package h2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// post begins a request with a body of the given length, -1 if that is not to be known.
func post(tr http.RoundTripper, body io.Reader, length int64) *exchange {
	x := &exchange{sent: &reqBody{Reader: body}}
	req, _ := http.NewRequest("POST", "https://upstream.example/", x.sent)
	req.ContentLength = length
	return x.send(tr, req)
}

// Bodies go out in frames as large as the peer allows, with their length if it is known.
func TestBodies(t *testing.T) {
	text := strings.Repeat("0123456789", 2000)
	for name, test := range map[string]struct {
		body   io.Reader
		length int64
		want   string
		field  string // content-length
	}{
		"none":               {nil, 0, "HEADERS 1 end", "[0]"},
		"http.NoBody":        {http.NoBody, 0, "HEADERS 1 end", "[0]"},
		"http.NoBody, -1":    {http.NoBody, -1, "HEADERS 1 end", "[0]"},
		"one byte":           {strings.NewReader("0"), 1, "HEADERS 1, DATA 1 1 end", "[1]"},
		"one frame":          {strings.NewReader(text[:16384]), 16384, "HEADERS 1, DATA 1 16384 end", "[16384]"},
		"two frames":         {strings.NewReader(text), 20000, "HEADERS 1, DATA 1 16384, DATA 1 3616 end", "[20000]"},
		"unknown length":     {io.MultiReader(strings.NewReader(text)), -1, "HEADERS 1, DATA 1 16384, DATA 1 3616, DATA 1 0 end", "[]"},
		"length 0, not none": {strings.NewReader("0"), 0, "HEADERS 1, DATA 1 1, DATA 1 0 end", "[]"},
		"unknown and empty":  {strings.NewReader(""), -1, "HEADERS 1, DATA 1 0 end", "[]"},
		"unknown, one frame": {strings.NewReader(text[:16384]), -1, "HEADERS 1, DATA 1 16384, DATA 1 0 end", "[]"},
		"longer than said":   {strings.NewReader("01234"), 4, "HEADERS 1, DATA 1 4 end", "[4]"},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				var x *exchange
				if test.body == nil || test.body == http.NoBody {
					req, _ := http.NewRequest("POST", "https://upstream.example/", test.body)
					req.ContentLength = test.length
					x = (&exchange{}).send(tr, req)
				} else {
					x = post(tr, test.body, test.length)
				}
				assert.Equal(t, strings.Join(p.take(), ", "), test.want)
				assert.Equal(t, fmt.Sprint(p.field(1, "content-length")), test.field)
				assert.Assert(t, strings.HasPrefix(text, string(p.body[1])))
				p.headersEnd(1, ":status: 200")
				assert.Equal(t, x.outcome(t), "200 [] EOF")
				assert.Assert(t, x.sent == nil || x.sent.isClosed())
			})
		})
	}
}

// A body is sent as the windows of the stream and of the connection allow, however they change.
func TestUploadWindows(t *testing.T) {
	initial := func(p *peer, n uint32) {
		p.out.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n})
	}
	for name, steps := range map[string][]struct {
		do   func(p *peer)
		want string
	}{
		"stream": {
			{func(p *peer) {}, "HEADERS 1, DATA 1 10"},
			{func(p *peer) { p.out.WriteWindowUpdate(0, 100) }, ""},
			{func(p *peer) { p.out.WriteWindowUpdate(1, 1) }, "DATA 1 1"},
			{func(p *peer) { p.out.WriteWindowUpdate(1, 100) }, "DATA 1 19 end"},
		},
		"initial window rises": {
			{func(p *peer) {}, "HEADERS 1, DATA 1 10"},
			{func(p *peer) { initial(p, 15) }, "SETTINGS ack, DATA 1 5"},
			{func(p *peer) { initial(p, 1<<31-1) }, "SETTINGS ack, DATA 1 15 end"},
		},
		"initial window falls": {
			{func(p *peer) {}, "HEADERS 1, DATA 1 10"},
			{func(p *peer) { initial(p, 4) }, "SETTINGS ack"}, // the stream's is -6
			{func(p *peer) { p.out.WriteWindowUpdate(1, 6) }, ""},
			{func(p *peer) { p.out.WriteWindowUpdate(1, 2) }, "DATA 1 2"},
			{func(p *peer) { initial(p, 0) }, "SETTINGS ack"}, // -4
			{func(p *peer) { initial(p, 5) }, "SETTINGS ack, DATA 1 1"},
			{func(p *peer) { p.out.WriteWindowUpdate(1, 100) }, "DATA 1 17 end"},
		},
		"larger frames": {
			{func(p *peer) { p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20}) }, "HEADERS 1, DATA 1 10, SETTINGS ack"},
			{func(p *peer) { p.out.WriteWindowUpdate(1, 100) }, "DATA 1 20 end"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				body := "0123456789abcdefghijklmnopqrst"
				x := send(tr, "POST", body)
				synctest.Wait()
				for i, step := range steps {
					step.do(p)
					said := strings.Join(p.take(), ", ")
					assert.Assert(t, said == step.want, "%d: %s", i, said)
				}
				assert.Equal(t, string(p.body[1]), body)
				p.headersEnd(1, ":status: 200")
				assert.Equal(t, x.outcome(t), "200 [] EOF")
			}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		})
	}
}

// Uploads share the connection's window, and none is starved.
func TestUploadsShare(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		random := rand.NewChaCha8([32]byte{1})
		var bodies [][]byte
		var exchanges []*exchange
		for i := range 4 {
			b := make([]byte, 100_000)
			random.Read(b)
			bodies = append(bodies, b)
			exchanges = append(exchanges, post(tr, bytes.NewReader(b), int64(len(b))*int64(1-2*(i%2))))
		}
		sum := func() (n int) {
			for _, b := range p.body {
				n += len(b)
			}
			return n
		}
		p.take()
		assert.Equal(t, sum(), 65535)
		for rounds := 0; sum() < 400_000; rounds++ {
			before := sum()
			p.out.WriteWindowUpdate(0, 1000)
			p.take()
			assert.Equal(t, sum(), min(before+1000, 400_000))
		}
		p.out.WriteWindowUpdate(0, 1) // for the end of those whose length is not known
		p.take()
		for i, x := range exchanges {
			for stream, b := range p.body {
				if bytes.HasPrefix(b, bodies[i][:100]) {
					assert.Assert(t, bytes.Equal(b, bodies[i]))
					p.headersEnd(stream, ":status: 200")
				}
			}
			assert.Equal(t, x.outcome(t), "200 [] EOF")
			assert.Assert(t, x.sent.isClosed())
		}
	}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
}

// A body that fails or is too short resets the stream and is the request's error; one that goes on for the peer would be
// incomplete.
func TestBadBodies(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		body   io.Reader
		length int64
		want   error
	}{
		"fails at once":              {&failing{err: broken}, 5, broken},
		"fails later":                {&failing{"he", broken}, 5, broken},
		"fails, of unknown length":   {&failing{"he", broken}, -1, broken},
		"too short":                  {strings.NewReader("hell"), 5, errShortBody},
		"too short by all":           {strings.NewReader(""), 5, errShortBody},
		"fails with unexpected EOF":  {&failing{"he", io.ErrUnexpectedEOF}, -1, io.ErrUnexpectedEOF},
		"short by an unexpected EOF": {&failing{"he", io.ErrUnexpectedEOF}, 5, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				x := post(tr, test.body, test.length)
				said := p.take()
				assert.Equal(t, said[len(said)-1], "RST_STREAM 1 CANCEL")
				assert.ErrorIs(t, x.err, test.want)
				assert.Assert(t, x.sent.isClosed())
				assert.Equal(t, len(tr.conns[0].streams), 0)
				assert.Equal(t, tr.conns[0].window, int64(65535-len(p.body[1])))
			})
		})
	}
}

// failing is a reader of text that ends with err.
type failing struct {
	text string
	err  error
}

func (r *failing) Read(p []byte) (int, error) {
	if r.text == "" {
		return 0, r.err
	}
	n := copy(p, r.text)
	r.text = r.text[n:]
	return n, nil
}

// A response that comes before the whole request has been sent.
func TestEarlyResponse(t *testing.T) {
	const size = 70_000 // more than the windows allow
	for name, test := range map[string]struct {
		then    func(t *testing.T, p *peer, x *exchange)
		said    string
		outcome string
	}{
		"closed by the reader": {func(t *testing.T, p *peer, x *exchange) {
			p.headersEnd(1, ":status: 413")
		}, "RST_STREAM 1 NO_ERROR", "413 [] EOF"},
		"given up in the middle": {func(t *testing.T, p *peer, x *exchange) {
			p.headers(1, ":status: 413")
			p.data(1, "hello")
			synctest.Wait()
			x.resp.Body.Close()
		}, "RST_STREAM 1 CANCEL", "413 [] h2: read from a closed body"},
		"and the peer resets": {func(t *testing.T, p *peer, x *exchange) {
			p.headers(1, ":status: 413")
			p.dataEnd(1, "hello")
			p.out.WriteRSTStream(1, http2.ErrCodeNo)
		}, "", "413 [] hello EOF"},
		"and the peer resets before its end": {func(t *testing.T, p *peer, x *exchange) {
			p.headers(1, ":status: 413")
			p.data(1, "hello")
			p.out.WriteRSTStream(1, http2.ErrCodeNo)
		}, "", "413 [] hello h2: the peer reset the stream: NO_ERROR"},
		"and the upload goes on": {func(t *testing.T, p *peer, x *exchange) {
			p.headers(1, ":status: 200")
			p.dataEnd(1, "hello")
			synctest.Wait()
			p.out.WriteWindowUpdate(0, size)
			p.out.WriteWindowUpdate(1, size)
		}, "DATA 1 1, DATA 1 4464 end", "200 [] hello EOF"},
		"and the connection ends": {func(t *testing.T, p *peer, x *exchange) {
			p.headers(1, ":status: 200")
			p.dataEnd(1, "hello")
			p.net.Close()
		}, "EOF", "200 [] hello EOF"},
		"shorter than declared": {func(t *testing.T, p *peer, x *exchange) {
			p.headers(1, ":status: 200", "content-length: 6")
			p.dataEnd(1, "hello")
		}, "RST_STREAM 1 CANCEL", "200 [] hello unexpected EOF"},
		"and then more": {func(t *testing.T, p *peer, x *exchange) {
			p.headersEnd(1, ":status: 200")
			p.data(1, "x")
		}, "RST_STREAM 1 PROTOCOL_ERROR", "200 [] EOF"},
		"and then another": {func(t *testing.T, p *peer, x *exchange) {
			p.headersEnd(1, ":status: 200")
			p.headersEnd(1, "t: 1")
		}, "RST_STREAM 1 PROTOCOL_ERROR", "200 [] EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				body := &reqBody{Reader: strings.NewReader(strings.Repeat("x", size))}
				req, _ := http.NewRequest("POST", "https://upstream.example/", body)
				req.ContentLength = size
				x := (&exchange{}).send(tr, req)
				assert.Equal(t, len(p.take()), 5)
				assert.Equal(t, len(p.body[1]), 65535)
				test.then(t, p, x)
				assert.Equal(t, x.outcome(t), test.outcome)
				assert.Equal(t, strings.Join(p.take(), ", "), test.said)
				assert.Assert(t, body.isClosed())
				if c := tr.conns; len(c) > 0 {
					assert.Equal(t, len(c[0].streams), 0)
				}
			})
		})
	}
}

// An upload that is cancelled ends at once, and leaves nothing behind that others would miss.
func TestUploadCancelled(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		x := send(tr, "POST", strings.Repeat("x", 70_000))
		assert.Equal(t, len(p.take()), 5)
		cause := errors.New("the client left")
		x.cancel(cause)
		assert.DeepEqual(t, p.take(), []string{"RST_STREAM 1 CANCEL"})
		assert.ErrorIs(t, x.err, cause)
		assert.Assert(t, x.sent.isClosed())
		p.out.WriteWindowUpdate(1, 70_000) // crossed our reset
		p.out.WriteWindowUpdate(0, 65_535)
		assert.Equal(t, len(p.take()), 0)
		assert.Equal(t, tr.conns[0].window, int64(65_535))
	})
}

// gated is a body that is read when the gate opens.
type gated struct {
	gate chan struct{}
	io.Reader
}

func (r *gated) Read(p []byte) (int, error) {
	<-r.gate
	return r.Reader.Read(p)
}

// What a slow body has been allowed but did not send goes to the others.
func TestSlowBodyReturnsItsAllowance(t *testing.T) {
	for _, how := range []string{"cancelled", "short", "fails"} {
		t.Run(how, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				var slow [4]*exchange
				gate := make(chan struct{})
				for i := range slow { // together they are allowed the connection's whole window
					var body io.Reader = strings.NewReader(strings.Repeat("x", 20_000))
					switch how {
					case "short":
						body = strings.NewReader("")
					case "fails":
						body = &failing{err: errors.New("broken")}
					}
					slow[i] = post(tr, &gated{gate, io.MultiReader(body)}, -1)
				}
				p.take()
				x := send(tr, "POST", "hello")
				p.take()
				if how == "cancelled" {
					for _, s := range slow {
						s.cancel(nil)
					}
				}
				p.take()
				close(gate)
				p.take()
				assert.Equal(t, string(p.body[9]), "hello")
				p.headersEnd(9, ":status: 200")
				assert.Equal(t, x.outcome(t), "200 [] EOF")
			}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		})
	}
}

// Many uploads that come at the same moment are no flood.
func TestUploadsBurst(t *testing.T) {
	scripted(t, func(t *testing.T, tr *Transport, p *peer) {
		p.out.WriteWindowUpdate(0, 1<<30)
		gate := make(chan struct{})
		var exchanges []*exchange
		for range maxStreams {
			exchanges = append(exchanges, post(tr, &gated{gate, strings.NewReader(strings.Repeat("x", 16<<10))}, -1))
		}
		p.take()
		p.jam()
		close(gate)
		synctest.Wait()
		p.out.WritePing(false, [8]byte{})
		p.listenAgain()
		p.take()
		for i := range uint32(maxStreams) {
			assert.Equal(t, len(p.body[1+2*i]), 16<<10)
			p.headersEnd(1+2*i, ":status: 200")
		}
		for _, x := range exchanges {
			assert.Equal(t, x.outcome(t), "200 [] EOF")
		}
	})
}
