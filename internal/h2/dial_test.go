package h2

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// upstream is what a Transport dials. Every dial waits until the test says what becomes of it.
type upstream struct {
	t     *testing.T
	gone  chan struct{} // closed at the end
	mu    sync.Mutex
	dials []*dialed
}

type dialed struct {
	t      *testing.T
	net    net.Conn
	answer chan error
}

// dialing runs a test with a Transport and the upstream that it dials, in a bubble.
func dialing(t *testing.T, test func(t *testing.T, tr *Transport, base *http.Transport, u *upstream)) {
	synctest.Test(t, func(t *testing.T) {
		u := &upstream{t: t, gone: make(chan struct{})}
		base := &http.Transport{DialContext: u.dial, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 1000}
		tr := New(base, options)
		end := sync.OnceFunc(func() {
			close(u.gone)
			synctest.Wait()
			for _, d := range u.dials {
				d.net.Close()
			}
			base.CloseIdleConnections()
			synctest.Wait()
		})
		t.Cleanup(end)
		test(t, tr, base, u)
		end()
		assert.Equal(t, len(tr.conns), 0)
	})
}

func (u *upstream) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	d := &dialed{t: u.t, net: theirs, answer: make(chan error)}
	u.mu.Lock()
	u.dials = append(u.dials, d)
	u.mu.Unlock()
	select {
	case err := <-d.answer:
		return newPipeEnd(ours), err
	case <-u.gone:
		return nil, errors.New("the test is over")
	}
}

// count says how many dials there were.
func (u *upstream) count() int {
	synctest.Wait()
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.dials)
}

// nth returns dial n, from 1.
func (u *upstream) nth(n int) *dialed {
	u.t.Helper()
	assert.Assert(u.t, u.count() >= n, "%d", u.count())
	return u.dials[n-1]
}

func (d *dialed) fail(err error) { d.answer <- err }

// tls accepts the dial, up to the TLS handshake.
func (d *dialed) tls(proto string) net.Conn {
	d.t.Helper()
	d.answer <- nil
	return d.handshake(proto)
}

func (d *dialed) handshake(proto string) net.Conn {
	d.t.Helper()
	d.net = tls.Server(d.net, &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{proto}})
	assert.NilError(d.t, d.net.(*tls.Conn).Handshake())
	return d.net
}

// h2 accepts the dial with HTTP/2.
func (d *dialed) h2(settings ...http2.Setting) *peer {
	d.t.Helper()
	p := newPeer(d.tls("h2"))
	p.out.WriteSettings(settings...)
	synctest.Wait()
	return p
}

// http1 accepts the dial with HTTP/1.1, and answers requests until the connection ends.
func (d *dialed) http1() {
	d.t.Helper()
	c := d.tls("http/1.1")
	go func() {
		in := bufio.NewReader(c)
		for {
			req, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}()
	synctest.Wait()
}

var certificate = sync.OnceValue(func() tls.Certificate {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return s.TLS.Certificates[0]
})

// requests are begun one after the other.
func requests(tr *Transport, n int) (xs []*exchange) {
	for range n {
		xs = append(xs, send(tr, "POST", "hello"))
		synctest.Wait()
	}
	return xs
}

// TestMain makes the certificate outside of any bubble.
func TestMain(m *testing.M) {
	certificate()
	m.Run()
}

// A crowd of requests opens one connection.
func TestOneDial(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		xs := requests(tr, maxStreams)
		p := u.nth(1).h2()
		for i := range uint32(maxStreams) {
			assert.Equal(t, string(p.body[1+2*i]), "hello")
			p.headersEnd(1+2*i, ":status: 200")
		}
		for _, x := range xs {
			assert.Equal(t, x.outcome(t), "200 [] EOF")
			assert.Assert(t, x.sent.isClosed())
		}
		requests(tr, maxStreams)
		assert.Equal(t, u.count(), 1)
		requests(tr, 1)
		assert.Equal(t, u.count(), 2) // beyond what one connection carries
	})
}

// Where a connection takes one request at a time, every request gets one, and none fails because others were faster.
func TestOneStreamPerConnection(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		xs := requests(tr, 20)
		var peers []*peer
		for n := 1; n <= u.count(); n++ {
			peers = append(peers, u.nth(n).h2(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1}))
		}
		assert.Assert(t, len(peers) < 2*len(xs), "%d", len(peers)) // http.Transport makes one too many now and then
		for _, p := range peers {
			if len(p.body) > 0 {
				p.headersEnd(1, ":status: 200")
			}
		}
		for _, x := range xs {
			assert.Equal(t, x.outcome(t), "200 [] EOF")
		}
	})
}

// If a dial fails its request fails, and those that waited for it try for themselves.
func TestDialFails(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		refused := errors.New("connection refused")
		xs := requests(tr, 3)
		assert.Equal(t, u.count(), 1)
		u.nth(1).fail(refused)
		assert.Equal(t, u.count(), 3)
		assert.ErrorIs(t, xs[0].err, refused)
		assert.Assert(t, xs[0].sent.isClosed())
		u.nth(2).fail(refused)
		p := u.nth(3).h2()
		answered := 0
		for _, x := range xs[1:] {
			if x.done {
				assert.ErrorIs(t, x.err, refused)
				continue
			}
			assert.Equal(t, string(p.body[1]), "hello")
			p.headersEnd(1, ":status: 200")
			assert.Equal(t, x.outcome(t), "200 [] EOF")
			answered++
		}
		assert.Equal(t, answered, 1)
		requests(tr, 1)
		assert.Equal(t, u.count(), 3)
	})
}

// If the request that dials leaves, one of those that wait dials in its place, and whichever connection comes first is used.
func TestDialerLeaves(t *testing.T) {
	for first, name := range []string{"the first dial succeeds", "the second dial succeeds"} {
		t.Run(name, func(t *testing.T) {
			dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
				xs := requests(tr, 5)
				cause := errors.New("the client left")
				xs[0].cancel(cause)
				assert.Equal(t, u.count(), 2)
				assert.ErrorIs(t, xs[0].err, cause)
				assert.Assert(t, xs[0].sent.isClosed())
				p := u.nth(1 + first).h2()
				for i := range uint32(4) {
					assert.Equal(t, string(p.body[1+2*i]), "hello")
					p.headersEnd(1+2*i, ":status: 200")
				}
				for _, x := range xs[1:] {
					assert.Equal(t, x.outcome(t), "200 [] EOF")
				}
				u.nth(2 - first).fail(errors.New("too late"))
				assert.Equal(t, u.count(), 2)
			})
		})
	}
}

// A request that waits for another's dial can leave, too.
func TestWaiterLeaves(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		xs := requests(tr, 2)
		cause := errors.New("the client left")
		xs[1].cancel(cause)
		synctest.Wait()
		assert.ErrorIs(t, xs[1].err, cause)
		assert.Assert(t, xs[1].sent.isClosed() && !xs[0].done)
		p := u.nth(1).h2()
		p.headersEnd(1, ":status: 200")
		assert.Equal(t, xs[0].outcome(t), "200 [] EOF")
	})
}

// A dial that hangs does not hold up those that wait for it.
func TestDialHangs(t *testing.T) {
	for _, where := range []string{"connecting", "TLS", "SETTINGS"} {
		t.Run(where, func(t *testing.T) {
			dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
				xs := requests(tr, 5)
				switch where {
				case "TLS":
					u.nth(1).answer <- nil
				case "SETTINGS":
					newPeer(u.nth(1).tls("h2"))
				}
				time.Sleep(patience - time.Nanosecond)
				assert.Equal(t, u.count(), 1)
				time.Sleep(time.Nanosecond)
				assert.Equal(t, u.count(), 2)
				p := u.nth(2).h2()
				for i := range uint32(5) {
					p.headersEnd(1+2*i, ":status: 200")
					synctest.Wait()
				}
				for _, x := range xs {
					assert.Equal(t, x.outcome(t), "200 [] EOF")
				}
				assert.Equal(t, u.count(), 2)
			})
		})
	}
}

// A request that finds room after all, when it was about to dial, does not make others wait for its answer.
func TestRoomAfterAll(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		requests(tr, 1)
		p := u.nth(1).h2(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
		aboutToDial := make(chan struct{})
		req, _ := http.NewRequest("GET", "https://upstream.example/", nil)
		ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GetConn: func(string) { <-aboutToDial }})
		(&exchange{}).send(tr, req.WithContext(ctx))
		synctest.Wait()
		x := get(tr)
		synctest.Wait()
		p.headersEnd(1, ":status: 200")
		p.take()
		close(aboutToDial)
		assert.DeepEqual(t, p.take(), []string{"HEADERS 3 end"})
		q := u.nth(2).h2()
		q.headersEnd(1, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
	})
}

// An upstream that chooses HTTP/1.1 gets it, with as many connections as requests, and HTTP/2 again when it wants to.
func TestHTTP1(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		xs := requests(tr, 3)
		assert.Equal(t, u.count(), 1)
		u.nth(1).http1()
		for n := 2; n <= u.count(); n++ {
			u.nth(n).http1()
		}
		assert.Assert(t, u.count() <= 3)
		for _, x := range xs {
			assert.Equal(t, x.outcome(t), "200 [] EOF")
			assert.Equal(t, x.resp.ProtoMajor, 1)
		}
		n := u.count()
		assert.Equal(t, requests(tr, 1)[0].outcome(t), "200 [] EOF")
		assert.Equal(t, u.count(), n)

		for _, d := range u.dials {
			d.net.Close()
		}
		synctest.Wait()
		x := requests(tr, 1)[0]
		p := u.nth(n + 1).h2()
		p.headersEnd(1, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
		assert.Equal(t, x.resp.ProtoMajor, 2)
		p.net.Close()
		synctest.Wait()
		requests(tr, 10)
		assert.Equal(t, u.count(), n+2) // one dial for all again
	})
}

// Connections that http.Transport still knows and that ended meanwhile are not the next request's failure.
func TestStaleConnections(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		xs := requests(tr, 10)
		u.nth(1).fail(errors.New("connection refused")) // and so nine dial for themselves
		assert.Equal(t, u.count(), 10)
		var peers []*peer
		for n := 2; n <= 10; n++ {
			peers = append(peers, u.nth(n).h2())
		}
		for _, x := range xs {
			x.cancel(nil)
		}
		synctest.Wait()
		for _, p := range peers {
			p.net.Close()
		}
		synctest.Wait()
		assert.Equal(t, len(tr.conns), 0)
		x := requests(tr, 1)[0]
		p := u.nth(11).h2()
		p.headersEnd(1, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
	})
}

// An upstream that ends every connection before it can be used is not dialed for ever.
func TestUselessConnections(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		req, _ := http.NewRequest("GET", "https://upstream.example/", nil)
		d := &dial{began: time.Now()}
		req = req.WithContext(context.WithValue(req.Context(), dialKey{}, d))
		time.Sleep(time.Second)
		for i := range maxUseless + 1 {
			ours, theirs := net.Pipe()
			p := newPeer(theirs)
			written := make(chan error)
			go func() { written <- p.out.WriteSettings() }()
			adopting := make(chan http.RoundTripper)
			go func() { adopting <- tr.adopt(newPipeEnd(ours)) }()
			assert.NilError(t, <-written)
			a := <-adopting
			p.out.WriteGoAway(0, http2.ErrCodeNo, nil)
			synctest.Wait()
			_, err := a.RoundTrip(req)
			var noConn interface{ IsHTTP2NoCachedConnError() }
			assert.Equal(t, errors.As(err, &noConn), i < maxUseless)
			assert.Equal(t, errors.Is(err, ErrClosed), i == maxUseless)
		}
	})
}

// What goes wrong on a new connection before it can be used is its request's error.
func TestBadConnection(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		xs := requests(tr, 1)
		newPeer(u.nth(1).tls("h2")).out.WritePing(false, [8]byte{})
		synctest.Wait()
		assert.ErrorIs(t, xs[0].err, ErrMalformed)
		assert.Assert(t, xs[0].sent.isClosed())

		xs = requests(tr, 1)
		u.nth(2).h2(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
		assert.ErrorIs(t, xs[0].err, ErrNoStreams)
	})
}

// A request that is refused on the connection that was dialed for it is sent again like any other.
func TestRefusedOnNewConnection(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		x := requests(tr, 1)[0]
		p := u.nth(1).h2()
		first := x.sent
		p.out.WriteGoAway(0, http2.ErrCodeNo, nil)
		q := u.nth(2).h2()
		assert.Equal(t, string(q.body[1]), "hello")
		q.headersEnd(1, ":status: 200")
		assert.Equal(t, x.outcome(t), "200 [] EOF")
		assert.Assert(t, first != x.sent && first.isClosed() && x.sent.isClosed())
	})
}

// Through an HTTP proxy it is the same.
func TestProxy(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		base.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy.example:3128"})
		xs := requests(tr, 3)
		d := u.nth(1)
		d.answer <- nil
		connect, err := http.ReadRequest(bufio.NewReader(d.net))
		assert.NilError(t, err)
		assert.Equal(t, connect.Method+" "+connect.RequestURI, "CONNECT upstream.example:443")
		fmt.Fprint(d.net, "HTTP/1.1 200 OK\r\n\r\n")
		p := newPeer(d.handshake("h2"))
		p.out.WriteSettings()
		synctest.Wait()
		for i := range uint32(3) {
			assert.Equal(t, string(p.body[1+2*i]), "hello")
			p.headersEnd(1+2*i, ":status: 200")
		}
		for _, x := range xs {
			assert.Equal(t, x.outcome(t), "200 [] EOF")
		}
		assert.Equal(t, u.count(), 1)
	})
}

// What is not https goes to http.Transport.
func TestPlainHTTP(t *testing.T) {
	dialing(t, func(t *testing.T, tr *Transport, base *http.Transport, u *upstream) {
		req, _ := http.NewRequest("GET", "http://upstream.example/", nil)
		x := (&exchange{}).send(tr, req)
		d := u.nth(1)
		d.answer <- nil
		got, err := http.ReadRequest(bufio.NewReader(d.net))
		assert.NilError(t, err)
		assert.Equal(t, got.Proto, "HTTP/1.1")
		io.Copy(d.net, strings.NewReader("HTTP/1.1 204 No Content\r\n\r\n"))
		assert.Equal(t, x.outcome(t), "204 [] EOF")
	})
}
