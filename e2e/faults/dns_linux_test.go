package faults

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// newResolver runs a name server on loopback, on port 53 of its own address. A mount namespace gives the proxy an /etc/resolv.conf that
// names it.
func newResolver(t *testing.T, address string, answer func(query []byte) []byte) (up upstream, asked <-chan struct{}) {
	t.Helper()
	socket, err := net.ListenPacket("udp", address+":53")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("no name server can be run here (root is needed): %v", err)
	}
	assert.NilError(t, err)
	came, done := make(chan struct{}, 1000), make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2000)
		for {
			n, from, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			came <- struct{}{}
			if reply := answer(buf[:n]); reply != nil {
				socket.WriteTo(reply, from)
			}
		}
	}()
	end := func() { socket.Close(); <-done }
	t.Cleanup(end)
	file := filepath.Join(t.TempDir(), "resolv.conf")
	assert.NilError(t, os.WriteFile(file, []byte("nameserver "+address+"\n"), 0o644))
	return upstream{close: end, env: []string{"GODEBUG=netdns=go", "PATH=" + os.Getenv("PATH")},
		under: []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, file}}, came
}

// reply answers a query with a response code and no record.
func reply(query []byte, code byte) []byte {
	answer := bytes.Clone(query[:12+bytes.IndexByte(query[12:], 0)+5])
	answer[2], answer[3] = 0x81, 0x80|code
	answer[10], answer[11] = 0, 0 // no additional section
	return answer
}

// losesIPv6 answers a question for an IPv4 address with loopback, and does not answer one for an IPv6 address. Go asks twice, 5 s each.
func losesIPv6(query []byte) []byte {
	answer := reply(query, 0)
	if kind := answer[len(answer)-4:]; kind[1] != 1 { // A
		return nil
	}
	answer[7] = 1 // record: the name asked for, A, IN, a TTL of 60 s, 4 bytes
	return append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1)
}

// TestResolver covers rows 2.1 and 2.6 for name resolution: if the name server fails or is silent, the client gets an error soon. If Go's
// resolver merely needs 10 s, the request passes.
func TestResolver(t *testing.T) {
	t.Parallel()
	for i, tt := range []struct {
		name   string
		answer func(query []byte) []byte
		reason string // "": the request is answered
	}{
		{"silent", func([]byte) []byte { return nil }, "cannot"}, // it fails after the time limit for connecting
		{"no such name", func(q []byte) []byte { return reply(q, 3) }, "cannot resolve the upstream's name"},
		{"fails", func(q []byte) []byte { return reply(q, 2) }, "cannot resolve the upstream's name"},
		{"answers nothing", func(q []byte) []byte { return reply(q, 0) }, "cannot resolve the upstream's name"},
		{"silent about IPv6", losesIPv6, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up, asked := newResolver(t, fmt.Sprint("127.77.53.", i+1), tt.answer)
			server := httptest.NewServer(http.NotFoundHandler())
			defer server.Close()
			_, port, err := net.SplitHostPort(server.Listener.Addr().String())
			assert.NilError(t, err)
			up.url = "http://upstream.example.:" + port
			w := newWorld(t, up, "timeout_secs = 600")
			c := w.post("/first", "{}")
			if tt.reason == "" {
				w.ended(c, answered)
				return
			}
			_, logged := w.ended(c, failed, timedOut)
			w.tells(logged, tt.reason)
			assert.Equal(t, c.res.Header.Get("X-Should-Retry"), "", "nothing was sent")
			assert.Assert(t, len(asked) > 0, "nobody asked")
		})
	}
}
