//go:debug x509usefallbackroots=1

package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/proxy"
)

// patience is how long a test waits for what must happen. Only a failing test waits that long.
const patience = 20 * time.Second

// TestMain makes the test servers' certificate trusted: the proxy's transport knows the system's roots only.
func TestMain(m *testing.M) {
	server := httptest.NewTLSServer(nil)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	server.Close()
	x509.SetFallbackRoots(roots) // used instead of the system's because of the go:debug line above
	os.Exit(m.Run())
}

// gateway is a proxy under test on its own socket.
type gateway struct {
	addr    string
	url     string
	metrics *metrics.Metrics
	client  *http.Client // follows no redirect, decodes nothing
	log     *logSink
	scrape  http.Handler
	drain   context.CancelCauseFunc // ends all request contexts
	handler http.Handler
}

// start runs the proxy in front of upstreamURL, in a server that is set up as the command sets up its own.
func start(t *testing.T, upstreamURL string, changes ...func(*proxy.Options)) *gateway {
	t.Helper()
	u, err := url.Parse(upstreamURL)
	assert.NilError(t, err)
	registry := prometheus.NewRegistry()
	g := &gateway{
		metrics: metrics.New(registry, "test", metrics.Limits{MaxConnections: 100, MaxBufferedBytes: 8 << 20}),
		log:     &logSink{requests: make(chan map[string]any, 10000)},
		scrape:  promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}
	logger := slog.New(slog.NewJSONHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	opts := proxy.Options{
		Upstream:         u,
		Timeout:          patience,
		Retries:          2,
		MaxConnections:   100,
		MaxBodyBytes:     1 << 20,
		MaxBufferedBytes: 8 << 20,
		Rules:            []proxy.Rule{{Name: "anthropic-beta", Value: "oauth-2025-04-20", Add: true}},
		Logger:           logger,
		Draining:         func() bool { return false },
	}
	for _, change := range changes {
		change(&opts)
	}
	base, drain := context.WithCancelCause(context.Background())
	g.drain, g.handler = drain, proxy.New(opts, g.metrics)
	server := httptest.NewUnstartedServer(g.handler)
	server.Config.ConnContext = proxy.WithConn
	server.Config.BaseContext = func(net.Listener) context.Context { return base }
	server.Config.DisableGeneralOptionsHandler = true
	server.Config.ErrorLog = slog.NewLogLogger(logger.Handler(), slog.LevelWarn)
	server.Start()
	g.addr, g.url = server.Listener.Addr().String(), server.URL
	transport := &http.Transport{DisableCompression: true}
	g.client = &http.Client{
		Transport:     transport,
		Timeout:       patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		drain(nil)
		server.CloseClientConnections()
		server.Close()
	})
	return g
}

// timeout sets Options.Timeout.
func timeout(d time.Duration) func(*proxy.Options) {
	return func(o *proxy.Options) { o.Timeout = d }
}

// retries sets Options.Retries.
func retries(n int) func(*proxy.Options) { return func(o *proxy.Options) { o.Retries = n } }

// slots sets Options.MaxConnections.
func slots(n int) func(*proxy.Options) { return func(o *proxy.Options) { o.MaxConnections = n } }

// bodies sets the limit for one body and for all of them.
func bodies(one, all int64) func(*proxy.Options) {
	return func(o *proxy.Options) { o.MaxBodyBytes, o.MaxBufferedBytes = one, all }
}

// rules sets Options.Rules.
func rules(r ...proxy.Rule) func(*proxy.Options) { return func(o *proxy.Options) { o.Rules = r } }

// serveUpstream runs an upstream over HTTP/1.1.
func serveUpstream(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(handler)
	closeAtEnd(t, server)
	return server
}

// serveHTTP2 runs an upstream over TLS and HTTP/2.
func serveHTTP2(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.StartTLS()
	closeAtEnd(t, server)
	return server
}

// bothUpstreams runs test against an upstream that speaks HTTP/1.1 and against one that speaks HTTP/2.
func bothUpstreams(t *testing.T, handler http.HandlerFunc, test func(t *testing.T, upstreamURL string)) {
	t.Run("HTTP1 upstream", func(t *testing.T) { test(t, serveUpstream(t, handler).URL) })
	t.Run("HTTP2 upstream", func(t *testing.T) { test(t, serveHTTP2(t, handler).URL) })
}

func closeAtEnd(t *testing.T, server *httptest.Server) {
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
}

// serveRaw runs an upstream that is a function of the connection; nth counts the connections from 1. The connection is
// closed when the function returns.
func serveRaw(t *testing.T, handle func(conn net.Conn, in *bufio.Reader, nth int)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	acceptRaw(t, listener, handle)
	return "http://" + listener.Addr().String()
}

// serveAnswer runs an upstream that reads one request a connection and answers with text, whatever it is.
func serveAnswer(t *testing.T, text string) string {
	t.Helper()
	return serveRaw(t, func(conn net.Conn, in *bufio.Reader, _ int) {
		readMessage(in)
		io.WriteString(conn, text)
	})
}

func acceptRaw(t *testing.T, listener net.Listener, handle func(conn net.Conn, in *bufio.Reader, nth int)) {
	var mu sync.Mutex
	var open []net.Conn
	var handlers sync.WaitGroup
	handlers.Go(func() {
		for nth := 1; ; nth++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			handlers.Go(func() {
				defer conn.Close()
				handle(conn, bufio.NewReader(conn), nth)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		handlers.Wait()
	})
}

// readHead reads a message's head: its lines without the empty one at the end.
func readHead(in *bufio.Reader) ([]string, error) {
	var lines []string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if line = strings.TrimSuffix(line, "\r\n"); line == "" {
			return lines, nil
		}
		lines = append(lines, line)
	}
}

// fields returns the values of one header in the lines of a head, in order, and whatever their spelling of the name.
func fields(head []string, name string) []string {
	var values []string
	for _, line := range head[1:] {
		if key, value, _ := strings.Cut(line, ":"); strings.EqualFold(key, name) {
			values = append(values, strings.TrimSpace(value))
		}
	}
	return values
}

// readMessage reads a request whose body, if it has one, is of declared length.
func readMessage(in *bufio.Reader) (head []string, body string, err error) {
	if head, err = readHead(in); err != nil {
		return nil, "", err
	}
	var length int
	if values := fields(head, "Content-Length"); len(values) > 0 {
		length, _ = strconv.Atoi(values[0])
	}
	data := make([]byte, length)
	_, err = io.ReadFull(in, data)
	return head, string(data), err
}

// rawClient is a client's connection, to write and read byte by byte.
type rawClient struct {
	*net.TCPConn
	t  *testing.T
	in *bufio.Reader
}

// dial opens a connection to the proxy.
func (g *gateway) dial(t *testing.T) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", g.addr)
	assert.NilError(t, err)
	conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return &rawClient{TCPConn: conn.(*net.TCPConn), t: t, in: bufio.NewReader(conn)}
}

// send writes text.
func (c *rawClient) send(text string) {
	c.t.Helper()
	_, err := io.WriteString(c.TCPConn, text)
	assert.NilError(c.t, err)
}

// post writes the head of a POST with a body of the declared length, and then body, which may be shorter.
func (c *rawClient) post(declared int, body string) {
	c.t.Helper()
	c.send(fmt.Sprintf("POST /v1/messages HTTP/1.1\r\nHost: p\r\nContent-Length: %d\r\n\r\n%s", declared, body))
}

// response reads a response's head; the body is the caller's to read.
func (c *rawClient) response(method string) *http.Response {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, &http.Request{Method: method})
	assert.NilError(c.t, err)
	return res
}

// finalResponse reads a response's head, after informational ones perhaps.
func (c *rawClient) finalResponse(method string) *http.Response {
	c.t.Helper()
	res := c.response(method)
	for res.StatusCode < 200 {
		res = c.response(method)
	}
	return res
}

// answer sends a request, byte for byte, on a connection of its own, and reads the head of its final response.
func (g *gateway) answer(t *testing.T, request string) *http.Response {
	t.Helper()
	c := g.dial(t)
	c.send(request)
	method, _, _ := strings.Cut(request, " ")
	return c.finalResponse(method)
}

// closedWithoutAnswer fails unless the proxy closes the connection without writing another byte.
func (c *rawClient) closedWithoutAnswer() {
	c.t.Helper()
	rest, err := io.ReadAll(c.in)
	if netErr, ok := err.(net.Error); ok && netErr.Timeout() {
		c.t.Fatal("the proxy keeps the connection open; it should have closed it")
	}
	assert.Equal(c.t, string(rest), "", "the proxy wrote to a client that had left")
}

// waysToLeave are the arguments of leave.
var waysToLeave = []string{"half-close", "close", "reset"}

func (c *rawClient) leave(how string) {
	switch how {
	case "half-close":
		c.CloseWrite()
	case "close":
		c.Close()
	case "reset": // as a killed client's kernel may do
		c.SetLinger(0)
		c.Close()
	}
}

// body reads all of a response's body.
func body(t *testing.T, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	assert.NilError(t, err)
	return string(data)
}

// get makes a GET request of the client.
func (g *gateway) get(t *testing.T, path string) *http.Response {
	t.Helper()
	res, err := g.client.Get(g.url + path)
	assert.NilError(t, err)
	return res
}

// post makes a POST request of the client.
func (g *gateway) post(t *testing.T, text string) *http.Response {
	t.Helper()
	res, err := g.client.Post(g.url+"/v1/messages", "application/json", strings.NewReader(text))
	assert.NilError(t, err)
	return res
}

// metric returns the value of a series in the form that /metrics prints it: name{label="value"}.
func (g *gateway) metric(t *testing.T, series string) float64 {
	t.Helper()
	for line := range strings.Lines(g.scraped()) {
		if text, ok := strings.CutPrefix(line, series+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			assert.NilError(t, err)
			return value
		}
	}
	return 0
}

// retried returns how many attempts were repeated.
func (g *gateway) retried(t *testing.T) float64 {
	t.Helper()
	return g.metric(t, `proxy_upstream_retries_total{previous="nothing_sent"}`) +
		g.metric(t, `proxy_upstream_retries_total{previous="may_have_been_read"}`)
}

func (g *gateway) scraped() string {
	w := httptest.NewRecorder()
	g.scrape.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	return w.Body.String()
}

// reaches waits until a gauge has the value.
func reaches(t *testing.T, gauge *metrics.Gauge, name string, value int64) {
	t.Helper()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if n := gauge.Load(); n != value {
			return poll.Continue("%s is %d; it should become %d", name, n, value)
		}
		return poll.Success()
	}, poll.WithTimeout(patience), poll.WithDelay(time.Millisecond))
}

// logSink receives the proxy's log.
type logSink struct {
	mu       sync.Mutex
	text     bytes.Buffer
	requests chan map[string]any // the lines of finished requests
}

func (s *logSink) Write(p []byte) (int, error) {
	s.mu.Lock()
	s.text.Write(p)
	s.mu.Unlock()
	var line map[string]any
	if json.Unmarshal(p, &line) == nil && line["msg"] == "request" {
		s.requests <- line
	}
	return len(p), nil
}

func (s *logSink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// finished waits for the log line of the next request to finish. It is the last thing the proxy does for a request.
func (g *gateway) finished(t *testing.T) map[string]any {
	t.Helper()
	return within(t, g.log.requests, "the log line of a finished request")
}

// ended waits for the next request to finish, and checks how it did.
func (g *gateway) ended(t *testing.T, status float64, outcome string, attempts float64) (line map[string]any) {
	t.Helper()
	line = g.finished(t)
	assert.Equal(t, line["status"], status)
	assert.Equal(t, line["outcome"], outcome)
	assert.Equal(t, line["attempts"], attempts)
	return line
}

// within receives from ch.
func within[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("after %v still waiting for %s", patience, what)
		panic("unreachable")
	}
}

// assertOurError checks a response against the shape of the proxy's own errors and returns its message.
func assertOurError(t *testing.T, res *http.Response, status int) string {
	t.Helper()
	text := body(t, res)
	assert.Equal(t, res.StatusCode, status, text)
	id := res.Header.Get("X-Proxy-Request-Id")
	assert.Assert(t, isID(id), "x-proxy-request-id should be req_ and 32 hex digits, not %q", id)
	assert.DeepEqual(t, res.Header["Content-Type"], []string{"application/json"})
	assert.DeepEqual(t, res.Header["Request-Id"], []string{id})
	var e map[string]any
	assert.NilError(t, json.Unmarshal([]byte(text), &e), text)
	inner, _ := e["error"].(map[string]any)
	message, _ := inner["message"].(string)
	assert.DeepEqual(t, e, map[string]any{
		"type": "error", "request_id": id, "error": map[string]any{"type": "proxy_error", "message": message, "request_id": id},
	})
	return message
}

func isID(id string) bool {
	digits, ok := strings.CutPrefix(id, "req_")
	return ok && len(digits) >= 32 && strings.Trim(digits, "0123456789abcdef") == ""
}
