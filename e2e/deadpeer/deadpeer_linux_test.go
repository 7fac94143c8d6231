// Package deadpeer takes the upstream's host away, without a word, and watches the proxy notice.
//
// Contract row 2.5: within 60 s, whatever timeout_secs is. This is about HTTP/1.1, where only TCP can notice; for HTTP/2
// see the tests of internal/upstream, which need no wall clock.
package deadpeer

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

const (
	limit    = 60 * time.Second // the contract's
	ourSide  = "10.231.7.1"
	peerSide = "10.231.7.2"
)

func TestDeadPeer(t *testing.T) {
	namespace := newHost(t)
	reached := make(chan string, 3)
	served := make(chan struct{}) // closed at the end of the test: the handlers of the vanished host
	t.Cleanup(func() { close(served) })
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/waiting":
			io.Copy(io.Discard, r.Body)
		case "/streaming":
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, "first event\n\n")
			http.NewResponseController(w).Flush()
		}
		reached <- r.URL.Path
		<-served
	})}
	listener := listenIn(t, namespace)
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })

	proxy := binary.Start(t, binary.Config{Upstream: "http://" + listener.Addr().String(), Proxy: "timeout_secs = 600\nretries = 0"})
	type result struct {
		path, body string
		status     int
		took       time.Duration
		err        error
	}
	results := make(chan result, 3)
	vanished := make(chan time.Time)
	post := func(path string, size int) {
		resp, err := http.Post(proxy.URL+path, "text/plain", bytes.NewReader(make([]byte, size)))
		r := result{path: path, err: err}
		if err == nil {
			var body []byte
			body, r.err = io.ReadAll(resp.Body)
			r.status, r.body = resp.StatusCode, string(body)
			resp.Body.Close()
		}
		r.took = time.Since(<-vanished)
		results <- r
	}
	go post("/waiting", 10)      // everything sent is acknowledged: keep-alive probes must notice
	go post("/streaming", 10)    // the same in the middle of an answer
	go post("/uploading", 8<<20) // the upstream does not read on: data is in flight, and probes wait for it
	for range 3 {
		<-reached
	}
	t.Logf("reached by all; the host vanishes")
	command(t, "ip", "netns", "exec", namespace, "iptables", "-A", "INPUT", "-j", "DROP")
	command(t, "ip", "netns", "exec", namespace, "iptables", "-A", "OUTPUT", "-j", "DROP")
	at := time.Now()
	go func() {
		for range 3 {
			vanished <- at
		}
	}()
	for range 3 {
		select {
		case r := <-results:
			t.Logf("%s: noticed after %v: status %d %s %v", r.path, r.took.Round(time.Second), r.status, r.body, r.err)
			assert.Check(t, r.took < limit)
			if r.path == "/streaming" {
				assert.Check(t, r.status == 200 && r.err != nil, "a stream must be aborted, not ended")
				continue
			}
			assert.Check(t, r.err)
			assert.Check(t, is.Equal(r.status, http.StatusGatewayTimeout))
			assert.Check(t, is.Contains(r.body, "timeout after 45s (1 attempts): the connection died"))
		case <-time.After(3 * limit):
			t.Fatal("not noticed in three times the time")
		}
	}

	// Row 2.1: nor does the host take new connections, and that has 5 s.
	resp, err := http.Post(proxy.URL+"/waiting", "text/plain", strings.NewReader("x"))
	assert.NilError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	assert.NilError(t, err)
	assert.Equal(t, resp.StatusCode, http.StatusGatewayTimeout)
	assert.Assert(t, is.Contains(string(body), "timeout after 5s (1 attempts): cannot connect"))
}

// newHost makes a network namespace that is a host of its own at the other end of a cable.
func newHost(t *testing.T) string {
	name := fmt.Sprintf("peer%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("ip netns add: %v: %s", err, out)
		}
		t.Skipf("no network namespace can be made here (root and iproute2 are needed): %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	ours, theirs := name+"a", name+"b"
	command(t, "ip", "link", "add", ours, "type", "veth", "peer", "name", theirs)
	t.Cleanup(func() { exec.Command("ip", "link", "del", ours).Run() })
	command(t, "ip", "link", "set", theirs, "netns", name)
	command(t, "ip", "addr", "add", ourSide+"/30", "dev", ours)
	command(t, "ip", "link", "set", ours, "up")
	command(t, "ip", "netns", "exec", name, "ip", "addr", "add", peerSide+"/30", "dev", theirs)
	command(t, "ip", "netns", "exec", name, "ip", "link", "set", theirs, "up")
	return name
}

func command(t *testing.T, name string, args ...string) {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	assert.NilError(t, err, "%s %s: %s", name, strings.Join(args, " "), out)
}

// listenIn opens a listener inside a namespace: a socket belongs to the one in which it was made.
func listenIn(t *testing.T, namespace string) net.Listener {
	type opened struct {
		net.Listener
		error
	}
	result := make(chan opened)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		file, err := os.Open("/run/netns/" + namespace)
		if err == nil {
			defer file.Close()
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			result <- opened{nil, err}
			return
		}
		l, err := net.Listen("tcp", peerSide+":0")
		result <- opened{l, err}
	}()
	r := <-result
	assert.NilError(t, r.error)
	return r.Listener
}
