package h2

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"gotest.tools/v3/assert"
)

// Whatever a peer says after its SETTINGS, nothing panics, everything ends at once when the connection does, and no answer
// looks whole that was not. The input is frames as they are, or, if chosen, decides which well-formed ones are sent and what
// the requests do meanwhile.
func FuzzFrames(f *testing.F) {
	for _, seed := range seeds() {
		f.Add(seed, false)
	}
	for _, script := range []string{
		"\x00\x00\x02\x00\x10\x02\x20\x22",                 // headers, data, data that ends
		"\x00\x01\x02\x01\x20\x81\x00\x20\x05",             // a declared length and less
		"\x0b\x00\x02\x00\x00\x01\x20\x21\x00\x42",         // trailers
		"\x04\x00\x07\x04\x01\x08\x04\x02\x02",             // resets, refused and other
		"\x05\x00\x00\x05\x02\x07\x00\x00\x02\x00",         // GOAWAY in two steps
		"\x06\x00\x04\x06\x01\x02\x06\x02\x00\x06\x03\x01", // SETTINGS
		"\x07\x00\x10\x07\x80\xff\x08\x00\x08\x00",         // windows, PING
		"\x09\x01\x00\x0a\x00\x00\x00\x00\x00\x00\x02\x00", // cancelled, closed
		strings.Repeat("\x02\x40\xff\x00\x40\x00", 40),     // more than a window
	} {
		f.Add([]byte(script), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, chosen bool) {
		synctest.Test(t, func(t *testing.T) {
			z := begin(t)
			if chosen {
				z.play(data)
			} else {
				z.say(data)
			}
			synctest.Wait()
			end := time.Now()
			z.net.Close()
			synctest.Wait()
			assert.Equal(t, time.Since(end), time.Duration(0))
			z.check(t)
		})
	})
}

// fuzzed is a connection with a few exchanges, and all that was said on it.
type fuzzed struct {
	*peer
	said bytes.Buffer
	xs   []*exchange
}

func begin(t *testing.T) *fuzzed {
	base := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no further connection")
	}}
	tr := New(base, options)
	z := &fuzzed{peer: join(t, tr)}
	z.out = http2.NewFramer(io.MultiWriter(&z.said, ignoreErrors{z.net}), nil)
	z.out.AllowIllegalWrites = true
	for i, method := range []string{"GET", "HEAD", "POST", "POST"} {
		var body io.Reader
		if method == "POST" {
			body = strings.NewReader(strings.Repeat("x", 50_000))
		}
		req, _ := http.NewRequest(method, fmt.Sprint("https://upstream.example/", i), body)
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(int, textproto.MIMEHeader) error { return nil },
		}))
		x := &exchange{}
		ctx, cancel := context.WithCancelCause(req.Context())
		x.cancel = cancel
		go func() {
			x.resp, x.err = tr.RoundTrip(req.WithContext(ctx))
			if x.err == nil {
				x.got, x.ended = io.ReadAll(x.resp.Body)
				if x.ended == nil {
					x.ended = io.EOF
				}
				x.resp.Body.Close()
			}
			x.done = true
		}()
		synctest.Wait()
		z.xs = append(z.xs, x)
	}
	return z
}

// ignoreErrors goes on when the connection has been closed.
type ignoreErrors struct{ w io.Writer }

func (w ignoreErrors) Write(p []byte) (int, error) {
	w.w.Write(p)
	return len(p), nil
}

func (z *fuzzed) say(data []byte) {
	z.said.Write(data)
	z.net.Write(data)
}

// play sends what data decides, until it is used up.
func (z *fuzzed) play(data []byte) {
	next := func() (b byte) {
		if len(data) > 0 {
			b, data = data[0], data[1:]
		}
		return b
	}
	for len(data) > 0 {
		what, arg := next(), next()
		stream := uint32(1 + 2*(arg%8))
		last := arg&0x80 != 0
		switch what % 13 {
		case 0: // a response
			lines := []string{":status: 200", ":status: 204", ":status: 304", ":status: 103", ":status: 404", ":status: 099", "x: y", ""}[arg>>4%8:][:1]
			if n := next(); n&1 != 0 {
				lines = append(lines, fmt.Sprint("content-length: ", n>>1))
			}
			z.section(stream, last, lines)
		case 1: // a trailer
			z.section(stream, last, []string{"t: 1"})
		case 2:
			z.out.WriteData(stream, last, bytes.Repeat([]byte{arg}, int(next())))
		case 3:
			z.out.WriteDataPadded(stream, last, bytes.Repeat([]byte{arg}, 16*int(next())), make([]byte, next()))
		case 4:
			z.out.WriteRSTStream(stream, http2.ErrCode(next()%14))
		case 5:
			z.out.WriteGoAway([]uint32{0, 1, 3, 5, 7, 9, 1<<31 - 1, 2}[arg%8], http2.ErrCode(next()%14), nil)
		case 6:
			ids := []http2.SettingID{http2.SettingInitialWindowSize, http2.SettingMaxFrameSize, http2.SettingMaxConcurrentStreams, http2.SettingHeaderTableSize}
			values := []uint32{0, 1, 100, 1 << 14, 1 << 16, 1<<24 - 1, 1<<31 - 1, 1<<32 - 1}
			z.out.WriteSettings(http2.Setting{ID: ids[arg%4], Val: values[next()%8]})
		case 7:
			z.out.WriteWindowUpdate(stream-1+uint32(arg>>6)%2, uint32(next())<<uint(arg>>4))
		case 8:
			z.out.WritePing(last, [8]byte{})
		case 9:
			z.xs[int(arg)%len(z.xs)].cancel(errors.New("cancelled"))
		case 10:
			synctest.Wait()
		case 11: // a header section in pieces
			block := z.encode(":status: 200", "server: x")
			z.out.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndStream: last, BlockFragment: block[:1]})
			z.out.WriteContinuation(stream, true, block[1:])
		case 12:
			time.Sleep(time.Duration(arg) * 100 * time.Millisecond)
		}
	}
}

func (z *fuzzed) section(stream uint32, last bool, lines []string) {
	if lines[0] == "" {
		lines = nil
	}
	z.out.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, EndStream: last, BlockFragment: z.encode(lines...)})
}

// check looks for what must not be, by reading what was said with as little understanding as possible.
func (z *fuzzed) check(t *testing.T) {
	bodies, ended := map[uint32][]byte{}, map[uint32]bool{}
	connWindow, streamWindow := 65535, map[uint32]int{}
	initial := 65535
	for said := z.said.Bytes(); len(said) >= 9; {
		length := int(binary.BigEndian.Uint32(said) >> 8)
		kind, flags, stream := said[3], said[4], binary.BigEndian.Uint32(said[5:])&(1<<31-1)
		if said = said[9:]; len(said) < length {
			break
		}
		payload := said[:length]
		said = said[length:]
		switch http2.FrameType(kind) {
		case http2.FrameData:
			if flags&byte(http2.FlagDataPadded) != 0 && len(payload) > 0 && len(payload) > int(payload[0]) {
				payload = payload[1 : len(payload)-int(payload[0])]
			}
			if !ended[stream] {
				bodies[stream] = append(bodies[stream], payload...)
			}
			ended[stream] = ended[stream] || flags&byte(http2.FlagDataEndStream) != 0
		case http2.FrameHeaders:
			ended[stream] = ended[stream] || flags&byte(http2.FlagHeadersEndStream) != 0
		case http2.FrameWindowUpdate:
			if len(payload) == 4 {
				n := int(binary.BigEndian.Uint32(payload) & (1<<31 - 1))
				if stream == 0 {
					connWindow += n
				}
				streamWindow[stream] += n
			}
		case http2.FrameSettings:
			for ; len(payload) >= 6; payload = payload[6:] {
				if binary.BigEndian.Uint16(payload) == uint16(http2.SettingInitialWindowSize) {
					initial = max(initial, int(binary.BigEndian.Uint32(payload[2:])))
				}
			}
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	streams := map[string]uint32{} // of each path, the last
	for id, fields := range z.header {
		for _, f := range fields {
			if f.Name == ":path" {
				streams[f.Value] = max(streams[f.Value], id)
			}
		}
	}
	for i, x := range z.xs {
		assert.Assert(t, x.done, "%d did not end", i)
		if x.ended != io.EOF {
			continue
		}
		stream := streams[fmt.Sprint("/", i)]
		assert.Assert(t, ended[stream], "%d ended without END_STREAM", i)
		assert.Assert(t, bytes.Equal(x.got, bodies[stream]), "%d", i)
		if n := x.resp.ContentLength; n >= 0 && i != 1 && hasBody("GET", x.resp.StatusCode) {
			assert.Equal(t, int64(len(x.got)), n)
		}
	}
	sum := 0
	for stream, b := range z.body {
		sum += len(b)
		assert.Assert(t, len(b) <= min(50_000, initial+streamWindow[stream]))
	}
	assert.Assert(t, sum <= connWindow, "%d sent, %d allowed", sum, connWindow)
	for _, text := range z.heard {
		if strings.HasSuffix(text, sizeUpdate) {
			continue
		}
		assert.Assert(t, !strings.Contains(text, "http2:") && !strings.Contains(text, "error:"), "%s", text)
	}
}

// sizeUpdate is what hpack's decoder says of a table that shrank and grew between two header sections, though RFC 7541 section
// 4.2 has the encoder say both.
const sizeUpdate = "dynamic table size update MUST occur at the beginning of a header block"

// recorded is a connection that only keeps what is written.
type recorded struct {
	net.Conn
	bytes.Buffer
}

func (r *recorded) Read(p []byte) (int, error)  { return r.Buffer.Read(p) }
func (r *recorded) Write(p []byte) (int, error) { return r.Buffer.Write(p) }

// seeds are frames as they stand on the wire.
func seeds() (seeds [][]byte) {
	for _, write := range []func(p *peer){
		func(p *peer) { p.headersEnd(1, ":status: 200") },
		func(p *peer) { p.headers(1, ":status: 200", "content-length: 5"); p.dataEnd(1, "hello") },
		func(p *peer) { p.headers(1, ":status: 200", "content-length: 6"); p.dataEnd(1, "hello") },
		func(p *peer) { p.headers(3, ":status: 200", "content-length: 6"); p.dataEnd(3, "") },
		func(p *peer) { p.headers(5, ":status: 200", "trailer: t"); p.data(5, "x"); p.headersEnd(5, "t: 1") },
		func(p *peer) {
			p.headers(1, ":status: 103")
			p.headers(1, ":status: 200")
			p.net.Write([]byte("\x00\x00\x05\x00\x01"))
		},
		func(p *peer) { p.out.WriteRSTStream(1, http2.ErrCodeRefusedStream); p.headersEnd(9, ":status: 200") },
		func(p *peer) { p.out.WriteGoAway(3, http2.ErrCodeNo, nil); p.headersEnd(3, ":status: 200") },
		func(p *peer) { p.headersEnd(5, ":status: 413"); p.out.WriteRSTStream(5, http2.ErrCodeNo) },
		func(p *peer) {
			p.out.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			p.out.WriteWindowUpdate(0, 1<<20)
			p.out.WriteWindowUpdate(7, 1<<20)
		},
		func(p *peer) {
			block := p.encode(":status: 200", "a: b")
			p.out.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:2], PadLength: 3})
			p.out.WriteContinuation(1, true, block[2:])
			p.out.WriteDataPadded(1, true, []byte("hello"), make([]byte, 9))
		},
		func(p *peer) {
			p.out.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		},
		func(p *peer) { fmt.Fprint(p.net, "HTTP/1.1 200 OK\r\n\r\n") },
	} {
		said := &recorded{}
		p := &peer{net: said, out: http2.NewFramer(said, nil)}
		p.out.AllowIllegalWrites = true
		p.hpack = hpack.NewEncoder(&p.block)
		write(p)
		seeds = append(seeds, said.Bytes())
	}
	return seeds
}
