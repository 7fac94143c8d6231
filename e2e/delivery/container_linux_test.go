package delivery

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

const address = "http://127.0.0.1:8080"

// The test unpacks the image and runs it with the manifest's arguments, files and restrictions. The proxy must serve a stream from
// https://api.anthropic.com, a stand-in in the container's own network. After SIGTERM that stream must still finish.
func TestImageRunsStreamsAndDrains(t *testing.T) {
	m := rendered(t)
	n := newNetwork(t)
	events, beta := make(chan string), make(chan []string, 1)
	serveUpstream(t, n, func(w http.ResponseWriter, r *http.Request) {
		beta <- r.Header.Values("anthropic-beta")
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case event, more := <-events:
				if !more {
					return
				}
				fmt.Fprintf(w, "data: %s\n\n", event)
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	p := startPod(t, m, n)
	client := n.client()
	waitUntilHealthy(t, p, client)
	checkConfinement(t, m, p)

	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address+"/v1/messages", strings.NewReader(`{"stream":true}`))
	assert.NilError(t, err)
	request.Header.Set("anthropic-beta", "context-management-2025-06-27")
	answered := make(chan *http.Response, 1)
	go func() {
		response, err := client.Do(request)
		if err != nil {
			t.Error(err)
			close(answered)
			return
		}
		answered <- response
	}()
	send(t, events, "one")
	response, ok := <-answered
	assert.Assert(t, ok)
	defer response.Body.Close()
	assert.Equal(t, response.StatusCode, http.StatusOK)
	lines := bufio.NewReader(response.Body)
	assert.Equal(t, nextEvent(t, lines), "one")
	// The upstream sends "two" only after "one" has arrived, so nothing may hold "one" back.
	send(t, events, "two")
	assert.Equal(t, nextEvent(t, lines), "two")
	assert.Equal(t, strings.Join(<-beta, ","), "context-management-2025-06-27,oauth-2025-04-20")

	assert.NilError(t, syscall.Kill(p.pid, syscall.SIGTERM))
	p.waitFor(t, "the listener to close", func() bool {
		response, err := client.Get(address + "/health")
		if err == nil {
			response.Body.Close()
		}
		return err != nil && strings.Contains(err.Error(), "connection refused")
	})
	send(t, events, "three")
	assert.Equal(t, nextEvent(t, lines), "three")
	close(events)
	rest, err := io.ReadAll(lines)
	assert.NilError(t, err, "the stream was cut by the drain")
	assert.Equal(t, string(rest), "")
	select {
	case <-p.ended:
		assert.NilError(t, p.err, "the exit code after a drain must be 0")
	case <-time.After(deadline):
		t.Fatal("the process is still running after its last stream has ended")
	}
}

// checkConfinement checks with the kernel that the process has the manifest's restrictions.
func checkConfinement(t *testing.T, m manifests, p *pod) {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	assert.NilError(t, err)
	status := map[string]string{}
	for line := range strings.Lines(string(content)) {
		key, value, _ := strings.Cut(line, ":")
		status[key] = strings.Join(strings.Fields(value), " ")
	}
	assert.Equal(t, status["Uid"], "65532 65532 65532 65532")
	assert.Equal(t, status["Gid"], "65532 65532 65532 65532")
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		assert.Equal(t, status[set], "0000000000000000", set)
	}
	assert.Equal(t, status["NoNewPrivs"], "1")
	assert.Equal(t, status["Seccomp"], "2")
	assert.Assert(t, strings.HasSuffix(status["NSpid"], " 1"), "the proxy is process 1 of its container")
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", p.pid))
	assert.NilError(t, err)
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line) // device, mount point, type, options
		if fields[1] == "/" || fields[1] == m.container().VolumeMounts[0].MountPath {
			assert.Assert(t, strings.HasPrefix(fields[3], "ro,"), "%s is writable", fields[1])
		}
	}
	assert.Equal(t, p.account(t, "memory.max", "memory.limit_in_bytes"), m.container().Resources.Limits.Memory().Value())
}

const deadline = 30 * time.Second

// waitFor polls until the condition holds. It fails if the container ends first.
func (p *pod) waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		select {
		case <-p.ended:
			return poll.Error(fmt.Errorf("waiting for %s: the container has ended: %w", what, p.err))
		default:
		}
		if done() {
			return poll.Success()
		}
		return poll.Continue("waiting for %s", what)
	}, poll.WithTimeout(deadline), poll.WithDelay(10*time.Millisecond))
}

// waitUntilHealthy is the readiness probe, over IPv4 and IPv6.
func waitUntilHealthy(t *testing.T, p *pod, client *http.Client) {
	t.Helper()
	for _, base := range []string{address, "http://[::1]:8080"} {
		p.waitFor(t, base+"/health", func() bool {
			response, err := client.Get(base + "/health")
			if err != nil {
				return false
			}
			defer response.Body.Close()
			return response.StatusCode == http.StatusOK
		})
	}
}

// serveUpstream serves the API in the container's network: on port 443, with a certificate from the authority that the image trusts.
func serveUpstream(t *testing.T, n *network, handler http.HandlerFunc) {
	t.Helper()
	trusted, err := upstreamAuthority()
	assert.NilError(t, err)
	certificate, err := trusted.Issue(func(c *x509.Certificate) { c.DNSNames = []string{upstreamName} })
	assert.NilError(t, err)
	server := httptest.NewUnstartedServer(handler)
	assert.NilError(t, server.Listener.Close())
	server.Listener = n.listen(t, "127.0.0.1:443")
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
}

// send makes the upstream send the next event of its stream.
func send(t *testing.T, events chan<- string, event string) {
	t.Helper()
	select {
	case events <- event:
	case <-time.After(deadline):
		t.Fatalf("no stream is open at the upstream to send %q on", event)
	}
}

// nextEvent reads one `data:` line and the empty line after it.
func nextEvent(t *testing.T, lines *bufio.Reader) string {
	t.Helper()
	line, err := lines.ReadString('\n')
	assert.NilError(t, err)
	data, found := strings.CutPrefix(strings.TrimSpace(line), "data: ")
	assert.Assert(t, found, "%q is not an event", line)
	_, err = lines.ReadString('\n')
	assert.NilError(t, err)
	return data
}
