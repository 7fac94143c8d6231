//go:build unix

package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/internal/h2"
)

// The figures of the package comment:
//
//	go test -run '^$' -bench Protocol -benchtime 20000x -count 6 ./internal/upstream
//
// The upstream runs in a process of its own, so that the CPU counted here is the client's side alone.

const standInEnv = "UPSTREAM_BENCH_STANDIN"

// TestMain turns this test binary into the stand-in when a benchmark starts it again.
func TestMain(m *testing.M) {
	if os.Getenv(standInEnv) != "" {
		serveStandIn()
		return
	}
	os.Exit(m.Run())
}

// serveStandIn prints its URL and certificate, and serves until standard input ends.
func serveStandIn() {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		event := "event: content_block_delta\ndata: " + strings.Repeat("x", 120) + "\n\n"
		if r.URL.Path == "/small" {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, event)
			return
		}
		flush := http.NewResponseController(w).Flush
		flush()
		tick := time.NewTicker(2 * time.Millisecond) // a write each, so that events do not coalesce
		defer tick.Stop()
		for r.Context().Err() == nil && r.URL.Path == "/stream" {
			<-tick.C
			io.WriteString(w, event)
			flush()
		}
		<-r.Context().Done()
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	fmt.Println(s.URL)
	pem.Encode(os.Stdout, &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	fmt.Println()
	io.Copy(io.Discard, os.Stdin)
}

// startStandIn returns the stand-in's URL and a transport for it that speaks the given protocol only.
func startStandIn(b *testing.B, proto string) (string, http.RoundTripper) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), standInEnv+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	assert.NilError(b, err)
	stdout, err := cmd.StdoutPipe()
	assert.NilError(b, err)
	assert.NilError(b, cmd.Start())
	b.Cleanup(func() { stdin.Close(); cmd.Wait() })
	out := bufio.NewReader(stdout)
	url, err := out.ReadString('\n')
	assert.NilError(b, err)
	cert := ""
	for line := ""; line != "\n"; {
		line, err = out.ReadString('\n')
		assert.NilError(b, err)
		cert += line
	}
	roots := x509.NewCertPool()
	assert.Assert(b, roots.AppendCertsFromPEM([]byte(cert)))
	var t interface {
		http.RoundTripper
		CloseIdleConnections()
	}
	base := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, MaxIdleConnsPerHost: 1000, ForceAttemptHTTP2: proto == "h2-net/http"}
	if t = base; proto == "h2" {
		t = h2.New(base, h2.Options{SettingsTimeout: time.Minute, PingAfter: time.Minute, PingTimeout: time.Minute, IdleTimeout: time.Minute})
	}
	resp := get(b, t, strings.TrimSpace(url)+"/small")
	resp.Body.Close()
	assert.Equal(b, fmt.Sprint("h", resp.ProtoMajor), proto[:2])
	b.Cleanup(t.CloseIdleConnections)
	return strings.TrimSpace(url), t
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	assert.NilError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func get(b *testing.B, t http.RoundTripper, url string) *http.Response {
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(strings.Repeat("q", 2000)))
	assert.NilError(b, err)
	resp, err := t.RoundTrip(req)
	assert.NilError(b, err)
	return resp
}

// BenchmarkProtocolSmallRequest is one POST and its short answer after the other, on a warm connection.
func BenchmarkProtocolSmallRequest(b *testing.B) {
	for _, proto := range []string{"h1", "h2-net/http", "h2"} {
		b.Run(proto, func(b *testing.B) {
			url, t := startStandIn(b, proto)
			once := func() {
				resp := get(b, t, url+"/small")
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			once()
			before := cpuTime(b)
			for range b.N {
				once()
			}
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/req")
		})
	}
}

// BenchmarkProtocolEvent reads events of 20 concurrent streams, each event in a write of its own.
func BenchmarkProtocolEvent(b *testing.B) {
	const streams = 20
	for _, proto := range []string{"h1", "h2-net/http", "h2"} {
		b.Run(proto, func(b *testing.B) {
			url, t := startStandIn(b, proto)
			var bodies []io.ReadCloser
			for range streams {
				bodies = append(bodies, get(b, t, url+"/stream").Body)
			}
			before := cpuTime(b)
			var wg sync.WaitGroup
			for _, body := range bodies {
				wg.Go(func() {
					buf := make([]byte, 16<<10)
					for range b.N/streams + 1 {
						if _, err := body.Read(buf); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64((cpuTime(b)-before).Microseconds())/float64(b.N), "cpu-µs/event")
			for _, body := range bodies {
				body.Close()
			}
		})
	}
}

// BenchmarkProtocolStreamMemory holds 200 streams open that have sent nothing but their headers.
func BenchmarkProtocolStreamMemory(b *testing.B) {
	const streams = 200
	inUse := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	for _, proto := range []string{"h1", "h2-net/http", "h2"} {
		b.Run(proto, func(b *testing.B) {
			url, t := startStandIn(b, proto)
			for range b.N {
				before := inUse()
				var bodies []io.ReadCloser
				for range streams {
					bodies = append(bodies, get(b, t, url+"/silent").Body)
				}
				b.ReportMetric(float64(inUse()-before)/streams/1024, "KiB/stream")
				for _, body := range bodies {
					body.Close()
				}
				if b.N > 1 {
					break // one measurement says it; b.N is for the others
				}
			}
		})
	}
}
