package h2

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// serve starts net/http's own HTTP/2 server, and a Transport for it.
func serve(t *testing.T, conf *http.HTTP2Config, handler http.HandlerFunc) (*Transport, *httptest.Server) {
	s := httptest.NewUnstartedServer(handler)
	s.EnableHTTP2 = true
	s.Config.HTTP2 = conf
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	tr := New(&http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, options)
	t.Cleanup(func() { tr.CloseIdleConnections(); s.Close() })
	return tr, s
}

// Many exchanges at once, of all sizes and both ways, arrive byte for byte.
func TestManyAtOnce(t *testing.T) {
	for name, conf := range map[string]*http.HTTP2Config{
		"as it is":     {},
		"tiny windows": {MaxConcurrentStreams: 7, MaxReceiveBufferPerStream: 1000, MaxReceiveBufferPerConnection: 70_000},
		"large frames": {MaxReadFrameSize: 1 << 20, MaxReceiveBufferPerStream: 1 << 20, MaxReceiveBufferPerConnection: 1 << 24},
	} {
		t.Run(name, func(t *testing.T) {
			// It answers with a hash of what came and, while it comes, as much as was asked for.
			tr, s := serve(t, conf, func(w http.ResponseWriter, r *http.Request) {
				size, _ := strconv.Atoi(r.URL.Query().Get("size"))
				seed, _ := strconv.Atoi(r.URL.Query().Get("seed"))
				w.Header().Set("Trailer", "Hash")
				var wg sync.WaitGroup
				wg.Go(func() { io.CopyN(w, rand.NewChaCha8([32]byte{byte(seed)}), int64(size)) })
				hash := sha256.New()
				io.Copy(hash, r.Body)
				wg.Wait()
				w.Header().Set("Hash", fmt.Sprintf("%x", hash.Sum(nil)))
			})
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					random := rand.New(rand.NewPCG(uint64(i), 0))
					up := make([]byte, random.IntN(300_000)*(i%4)/3)
					rand.NewChaCha8([32]byte{byte(i)}).Read(up)
					size := random.IntN(300_000) * (i % 3)
					req, _ := http.NewRequest("POST", fmt.Sprint(s.URL, "/?seed=", i, "&size=", size), bytes.NewReader(up))
					if i%5 == 0 {
						req.ContentLength = -1
					}
					resp, err := tr.RoundTrip(req)
					if !assert.Check(t, err) {
						return
					}
					defer resp.Body.Close()
					want, got := rand.NewChaCha8([32]byte{byte(i)}), make([]byte, 5000)
					read, expect := 0, make([]byte, 5000)
					for err == nil {
						var n int
						n, err = resp.Body.Read(got[:1+random.IntN(4999)])
						want.Read(expect[:n])
						if read += n; !assert.Check(t, bytes.Equal(got[:n], expect[:n])) {
							return
						}
					}
					assert.Check(t, err == io.EOF && read == size, "%v after %d of %d", err, read, size)
					assert.Check(t, resp.Trailer.Get("Hash") == fmt.Sprintf("%x", sha256.Sum256(up)))
				})
			}
			wg.Wait()
		})
	}
}

// Exchanges that are given up at any moment do no harm to the others.
func TestManyGiveUp(t *testing.T) {
	tr, s := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusEarlyHints)
		io.Copy(w, r.Body)
	})
	text := strings.Repeat("x", 200_000)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, "POST", s.URL, strings.NewReader(text))
			if i%2 == 0 {
				time.AfterFunc(time.Duration(i)*100*time.Microsecond, cancel) // at no certain point
			}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				assert.Check(t, ctx.Err() != nil, "%v", err)
				return
			}
			defer resp.Body.Close()
			n, err := io.Copy(io.Discard, resp.Body)
			assert.Check(t, ctx.Err() != nil || err == nil && n == int64(len(text)), "%d: %v", n, err)
		})
	}
	wg.Wait()
	resp, err := tr.RoundTrip(httptest.NewRequest("GET", s.URL, nil))
	assert.NilError(t, err)
	resp.Body.Close()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, c := range tr.conns {
		c.mu.Lock()
		assert.Check(t, len(c.streams) == 0 && c.waiting == 0)
		c.mu.Unlock()
	}
}

// A server that restarts again and again, as net/http's does it, loses none of the requests: they are finished, sent again
// on the next connection, or, if that restarts as well, refused in so many words.
func TestGracefulRestarts(t *testing.T) {
	tr, s := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Last") != "" {
			w.Header().Set("Connection", "close") // a GOAWAY, in HTTP/2
		}
		io.Copy(w, r.Body)
	})
	var refused atomic.Int32
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 60 {
				req, _ := http.NewRequest("POST", s.URL, strings.NewReader("hello"))
				if worker == 0 && i%20 == 19 {
					req.Header.Set("Last", "1")
				}
				resp, err := tr.RoundTrip(req)
				if err == ErrRefused {
					refused.Add(1)
					continue
				}
				if !assert.Check(t, err) {
					return
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				assert.Check(t, err == nil && string(body) == "hello", "%q: %v", body, err)
			}
		})
	}
	wg.Wait()
	assert.Check(t, refused.Load() < 8, "%d", refused.Load()) // of 480
}
