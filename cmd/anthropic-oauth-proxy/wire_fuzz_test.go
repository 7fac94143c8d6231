package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// FuzzWire writes bytes of any kind to one connection of the whole service and reads all that comes back, while an upstream
// notes all that arrives there. Both ends read strictly, and without net/http. A third strict reader goes through the
// input: as far as it is plain HTTP, it is known what must be answered and what must arrive upstream, to the byte. From
// the first byte on that is not plain, the service may refuse or forward; but what it forwards in this "wild" part must
// stand there, and no more often than it stands there.
//
// cut is where a second segment begins. how holds, from its lowest bit on: two bits for the manner of sending, one for
// HTTP/2 to the upstream, one without meaning, four each for the upstream's answer to the first request and to the others.
func FuzzWire(f *testing.F) {
	before := runtime.NumGoroutine()
	f.Cleanup(func() { // the first registered is the last to run
		poll.WaitOn(f, func(poll.LogT) poll.Result {
			if n := runtime.NumGoroutine(); n > before+5 {
				var stacks strings.Builder
				pprof.Lookup("goroutine").WriteTo(&stacks, 1)
				return poll.Continue("%d goroutines were there before, and now: %s", before, &stacks)
			}
			return poll.Success()
		}, poll.WithTimeout(patience))
	})
	services := [2]*wire{startWire(f, nil)}
	services[1] = services[0]
	if runtime.GOOS == "linux" { // elsewhere SSL_CERT_FILE says nothing
		services[1] = startWire(f, certified(f))
	}
	const h2 = 4
	for i, seed := range wireSeeds {
		f.Add([]byte(seed), uint16(len(seed)/3), uint16(sentinel|i%len(answers)<<4))
		f.Add([]byte(seed), uint16(i), uint16(sentinel|h2))
		f.Add([]byte(seed), uint16(len(seed)/2), uint16(stepwise|i%2*h2))
		f.Add([]byte(seed), uint16(i), uint16([]int{keptOpen, atOnce, keptOpen | h2, atOnce | h2}[i%4]))
	}
	head11, get10 := strings.Replace(plainGet, "GET", "HEAD", 1), strings.Replace(plainGet, "1.1", "1.0", 1)
	for i := range answers { // to a first request and to a later one
		for _, how := range []int{stepwise, stepwise | h2} {
			f.Add([]byte(plainPost+plainGet+plainPost), uint16(len(plainPost)), uint16(how|i<<4))
			f.Add([]byte(plainGet+plainPost+plainGet), uint16(len(plainGet)), uint16(how|i<<8))
			f.Add([]byte(head11+plainGet), uint16(i), uint16(how|i<<4|i<<8))
			f.Add([]byte(get10), uint16(i), uint16(how|i<<4))
		}
	}
	f.Fuzz(func(t *testing.T, input []byte, cut, how uint16) {
		if len(input) > 128<<10 {
			return
		}
		w := services[how>>2&1]
		w.upstream.next = [2]int{int(how>>4&15) % len(answers), int(how>>8&15) % len(answers)}
		x := &trial{input: string(input), cut: min(int(cut), len(input)), manner: int(how & 3), h2: w.upstream.config != nil}
		if x.manner == sentinel {
			x.input += lastRequest
		}
		x.plain, x.wild = predict(x.input)
		x.talk(t, w.addr)
		x.arrived = w.upstream.settle(t)
		x.check(t, w.logged(t))
		w.atRest(t)
	})
}

// The manners of sending.
const (
	keptOpen = iota // the client closes its side when all plain requests are answered
	atOnce          // right after the last byte, so that the service may give up what is not finished (contract row 2.8)
	sentinel        // like keptOpen, with one more plain request at the end, which brings out what a wild part has led to
	stepwise        // like keptOpen, and what follows the cut waits for the answers to what precedes it
)

const (
	basePath    = "/base"
	maxBody     = 2000
	betaFlag    = "oauth-2025-04-20"
	lastRequest = "GET /last HTTP/1.1\r\nHost: proxy.test\r\nConnection: close\r\n\r\n"
)

// wire is the whole service, in this process, with an upstream of its own.
type wire struct {
	addr     string
	upstream *recordingUpstream
	log      logText
	conn     net.Conn // the test's own
}

func startWire(f *testing.F, config *tls.Config) *wire {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(f, err)
	w := &wire{upstream: newRecordingUpstream(listener, config), log: make(logText, 10000)}
	scheme := "http"
	if config != nil {
		scheme = "https"
	}
	file := filepath.Join(f.TempDir(), "proxy.toml")
	assert.NilError(f, os.WriteFile(file, fmt.Appendf(nil, "[proxy]\nupstream_url = %q\nmax_body_bytes = %d\nmax_buffered_bytes = %d\n"+
		"[[headers]]\nname = \"anthropic-beta\"\nvalue = %q\nmode = \"add\"\n[[headers]]\nname = \"x-set\"\nvalue = \"ours\"\n",
		scheme+"://"+listener.Addr().String()+basePath, maxBody, 2*maxBody, betaFlag), 0o600))
	signals, ended := make(chan os.Signal, 1), make(chan int, 1)
	env := map[string]string{"LOG_LEVEL": "debug", "CONFIG_PATH": file}
	go func() {
		ended <- run(signals, []string{"--listen", "127.0.0.1:0"}, func(name string) string { return env[name] }, io.Discard, w.log)
	}()
	running, log := regexp.MustCompile(`"state":"running","addr":"([^"]+)"`), ""
	for deadline := time.After(patience); w.addr == ""; {
		select {
		case text := <-w.log:
			if log += text; running.MatchString(log) {
				w.addr = running.FindStringSubmatch(log)[1]
			}
		case <-deadline:
			f.Fatalf("not running: %s", log)
		}
	}
	w.conn, err = net.Dial("tcp", w.addr)
	assert.NilError(f, err)
	f.Cleanup(func() {
		w.conn.Close()
		signals <- syscall.SIGTERM
		select {
		case code := <-ended:
			log := ""
			for len(w.log) > 0 {
				log += <-w.log
			}
			assert.Check(f, code == 0 && strings.Contains(log, `"aborted":0`), "exit code %d\n%s", code, log)
		case <-time.After(patience):
			f.Error("the service does not stop")
		}
		listener.Close()
	})
	return w
}

// ask makes a request of the test's own.
func (w *wire) ask(t *testing.T, target string) response {
	t.Helper()
	_, err := io.WriteString(w.conn, "GET "+target+" HTTP/1.1\r\nHost: proxy.test\r\n\r\n")
	assert.NilError(t, err)
	w.conn.SetReadDeadline(time.Now().Add(patience))
	text, buf := "", make([]byte, 64<<10)
	for {
		n, err := w.conn.Read(buf)
		assert.NilError(t, err)
		text += string(buf[:n])
		r, _, err := readResponse(text, "GET", false)
		if err != errIncomplete {
			assert.NilError(t, err)
			return r
		}
	}
}

// atRest waits until nothing is held for any request: all of them are over.
func (w *wire) atRest(t *testing.T) {
	t.Helper()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		metrics := w.ask(t, "/metrics").body
		for _, gauge := range []string{"proxy_requests_in_flight", "proxy_requests_queued", "proxy_held_body_bytes"} {
			if !strings.Contains(metrics, "\n"+gauge+" 0\n") {
				return poll.Continue("%s is not 0", gauge)
			}
		}
		return poll.Success()
	}, poll.WithTimeout(patience), poll.WithDelay(time.Millisecond))
}

// logged returns what has been logged since the last call. A request that is refused is logged, after all of the others.
func (w *wire) logged(t *testing.T) string {
	t.Helper()
	refusal := w.ask(t, "mailto:nobody")
	ids := refusal.values("x-proxy-request-id")
	assert.Equal(t, len(ids), 1)
	log := ""
	for deadline := time.After(patience); !strings.Contains(log, ids[0]); {
		select {
		case text := <-w.log:
			log += text
		case <-deadline:
			t.Fatalf("%s is not in the log:\n%s", ids[0], log)
		}
	}
	return log
}

// logText brings what the service logs, in pieces of whole lines.
type logText chan string

func (l logText) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// trial is one input and all that came of it.
type trial struct {
	input  string
	cut    int
	manner int
	h2     bool // the upstream speaks HTTP/2

	plain   []request // what the input begins with
	wild    string    // what follows it
	heard   string    // all the service sent to the client
	reset   bool      // which did not end with the stream's end
	arrived []arrival // what came upstream
}

// talk sends the input and reads until the service closes the connection.
func (x *trial) talk(t *testing.T, addr string) {
	t.Helper()
	dialled, err := net.Dial("tcp", addr)
	assert.NilError(t, err)
	conn := dialled.(*net.TCPConn)
	first, _ := predict(x.input[:x.cut])
	step, end, sent := make(chan struct{}), make(chan struct{}), make(chan struct{})
	goOn, finish := sync.OnceFunc(func() { close(step) }), sync.OnceFunc(func() { close(end) })
	soon := sync.OnceFunc(func() { time.AfterFunc(50*time.Millisecond, finish) }) // a body of the wild part may have swallowed the last request
	go func() {
		defer close(sent)
		io.WriteString(conn, x.input[:x.cut])
		if x.manner == stepwise {
			<-step
		}
		io.WriteString(conn, x.input[x.cut:])
		if x.manner != atOnce {
			<-end
		}
		conn.CloseWrite()
	}()
	conn.SetReadDeadline(time.Now().Add(patience))
	buf, rest, answered := make([]byte, 32<<10), "", 0
	for err == nil {
		for answered < len(x.plain) {
			_, after, err := readResponse(rest, x.plain[answered].start[0], false)
			if err != nil {
				if err != errIncomplete { // as check will find, too
					finish()
				}
				break
			}
			rest = after
			answered++
		}
		if answered >= len(first) {
			goOn()
		}
		switch {
		case answered < len(x.plain):
		case x.manner == sentinel && x.wild != "":
			soon()
		default:
			finish()
		}
		var n int
		n, err = conn.Read(buf)
		x.heard += string(buf[:n])
		rest += string(buf[:n])
	}
	assert.Check(t, !errors.Is(err, os.ErrDeadlineExceeded), "%d requests, but after %v %d answers: %q", len(x.plain), patience, answered, x.heard)
	x.reset = err != io.EOF
	conn.Close()
	goOn()
	finish()
	<-sent
}

// check compares what was heard, what arrived upstream and what was logged with the input.
func (x *trial) check(t *testing.T, log string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("plain: %d requests, wild: %q\nheard: %q (reset: %v)\nlog:\n%s", len(x.plain), x.wild, x.heard, x.reset, log)
			for _, a := range x.arrived {
				t.Logf("upstream, answered with %s: %s", a.answer.name, a.key())
			}
		}
	}()
	x.checkLog(t, log)
	groups := x.grouped(t)
	text, arrived, over := x.heard, groups, false
	var a *arrival
	for i, want := range x.plain {
		if want.target != "" {
			switch {
			case len(arrived) > 0 && want.same(arrived[0]):
				a, arrived = arrived[0], arrived[1:]
				want.checkForwarded(t, a)
			case a != nil && a.times > 1 && want.same(a): // it was taken for a repetition of the one before
			default:
				a = nil
				assert.Check(t, x.manner == atOnce, "request %d has not been forwarded", i)
			}
			if a != nil {
				a.requests++
			}
		}
		r, rest, err := readResponse(text, want.start[0], !x.reset)
		breaks := want.target != "" && (a == nil || a.answer.broken && !a.answer.isWhole(want.start[0]))
		if err == errIncomplete && (breaks || x.manner == atOnce) {
			text, over = "", true
			break
		}
		if err != nil || breaks {
			t.Errorf("request %d: should its answer break off? %v. It is %v, %q", i, breaks, err, r)
			return
		}
		want.checkAnswer(t, r, a, log)
		text, over = rest, want.final
	}
	if !over {
		text, arrived = x.checkWild(t, text, arrived)
	}
	if text != "" || len(arrived) > 0 {
		t.Errorf("nothing gave reason for %d requests upstream and the answer %q", len(arrived), text)
	}
	for _, g := range groups {
		assert.Check(t, !x.h2 || g.times <= 2*g.requests, "%d times upstream: %s", g.times, g.key()) // contract row 2.6
	}
}

// grouped checks what holds for all requests upstream. Those that are allowed to come again become one.
func (x *trial) grouped(t *testing.T) (groups []*arrival) {
	for i := range x.arrived {
		a := &x.arrived[i]
		a.times = 1
		for _, f := range a.fields {
			assert.Check(t, !slices.Contains(hopByHop, f.name) && !isLocalField(f.name), "%s has come upstream", f.name)
		}
		assert.Check(t, a.fault == "" && len(a.trailers) == 0 && len(a.values("host")) == 1 && a.start[0] != "CONNECT" &&
			slices.Equal(a.values("x-set"), []string{"ours"}) && slices.Contains(a.tokens("anthropic-beta"), betaFlag), "upstream: %s %s", a.fault, a.key())
		if n := len(groups) - 1; n >= 0 && groups[n].mayRepeat(x.h2) && groups[n].key() == a.key() {
			groups[n].times++
			groups[n].answer = a.answer
			continue
		}
		groups = append(groups, a)
	}
	return groups
}

// noCache is what net/http makes of a Pragma of that value, before anybody can see it.
var noCache = field{"cache-control", "no-cache"}

// checkForwarded compares a plain request with what arrived (contract rows 1.1 to 1.10).
func (r *request) checkForwarded(t *testing.T, a *arrival) {
	t.Helper()
	fields := func(from []field, without []string) map[string][]string {
		all := map[string][]string{"x-set": {"ours"}}
		for _, f := range from {
			own := f.name == "host" || f.name == "content-length" || f.name == "x-set" || isLocalField(f.name)
			if !own && (slices.Contains(protected, f.name) || !containsFold(without, f.name)) {
				all[f.name] = append(all[f.name], f.value)
			}
		}
		return all
	}
	sent := slices.Clone(r.fields)
	if pragma := r.values("pragma"); len(pragma) > 0 && pragma[0] == "no-cache" && len(r.values("cache-control")) == 0 {
		sent = append(sent, noCache)
	}
	want, got := fields(sent, append(r.tokens("connection"), hopByHop...)), fields(a.fields, nil)
	if agents := want["user-agent"]; len(agents) > 1 || len(agents) == 1 && agents[0] == "" { // net/http passes the first one on, unless it is empty
		delete(want, "user-agent")
		delete(got, "user-agent")
	}
	if lines := want["anthropic-beta"]; !slices.Contains(listed(lines), betaFlag) {
		assert.Check(t, slices.Equal(listed(got["anthropic-beta"]), append(listed(lines), betaFlag)), "anthropic-beta is %q", got["anthropic-beta"])
		delete(want, "anthropic-beta")
		delete(got, "anthropic-beta")
	}
	if cookie := got["cookie"]; len(cookie) > 0 { // HTTP/2 may cut it into its crumbs (RFC 9113 section 8.2.3)
		crumbs := func(lines []string) string { return strings.ReplaceAll(strings.Join(lines, ";"), "; ", ";") }
		assert.Check(t, crumbs(cookie) == crumbs(want["cookie"]), "the cookie is %q, not %q", cookie, want["cookie"])
		want["cookie"] = cookie
	}
	assert.Check(t, a.body == r.body, "the body is %q, not %q", a.body, r.body)
	assert.DeepEqual(t, got, want)
}

// checkAnswer checks the answer to a plain request.
func (r *request) checkAnswer(t *testing.T, got response, a *arrival, log string) {
	t.Helper()
	status, http11 := r.status, r.start[2] == "HTTP/1.1"
	early := 0
	if r.target != "" {
		status = a.answer.status
		if a.answer.early && http11 {
			early = 1
		}
		if status != 502 {
			body := a.answer.body
			if r.start[0] == "HEAD" {
				body = ""
			}
			assert.Check(t, got.body == body, "the body is %q, not %q", got.body, body)
			assert.Check(t, slices.Equal(got.values("x-answer"), []string{"one", "two"}), "the answer's headers are %q", got.fields)
			assert.Check(t, (len(got.trailers) > 0) == (a.answer.trailer && http11 && r.start[0] != "HEAD"), "the answer's trailers are %q", got.trailers)
		}
	}
	if (status == 400 || status == 502) && r.start[0] != "HEAD" {
		assert.Check(t, strings.HasPrefix(got.body, `{"type":"error","error":{"type":"proxy_error"`), "the error is %q", got.body)
	}
	if r.target != "" || status == 400 {
		id := got.values("x-proxy-request-id")
		assert.Check(t, len(id) == 1 && strings.Contains(log, `"request_id":"`+id[0]+`"`), "the id is %q", id)
	}
	assert.Check(t, got.start[1] == strconv.Itoa(status), "%s %s: status %s, not %d", r.start[0], r.start[1], got.start[1], status)
	assert.Check(t, !http11 || containsFold(got.tokens("connection"), "close") == r.final, "the connection: %q, is it the last answer? %v", got.tokens("connection"), r.final)
	mayContinue := len(r.values("expect")) > 0 && status != 400 && (r.body != "" || len(r.values("transfer-encoding")) > 0)
	for _, interim := range got.interim {
		switch {
		case interim == "100" && mayContinue:
			mayContinue = false
		case interim == "103" && early > 0:
			early--
		default:
			t.Errorf("an interim response that nobody asked for: %s", interim)
		}
	}
	assert.Check(t, !mayContinue && early == 0, "no interim response among %q", got.interim)
}

// checkWild checks what a wild part led to. It returns what nothing in that part explains.
func (x *trial) checkWild(t *testing.T, text string, arrived []*arrival) (string, []*arrival) {
	lines := startLine.FindAllStringSubmatch(x.wild, -1)
	for n := 0; text != ""; n++ {
		r, rest, err := readResponse(text, "HEAD", !x.reset)
		if err != nil || !strings.Contains(x.wild, "HEAD ") || rest != "" && !strings.HasPrefix(rest, "HTTP/1.") {
			r, rest, err = readResponse(text, "GET", !x.reset)
		}
		if err == errIncomplete { // the end of the client's side may have ended it
			text = ""
			break
		}
		if err != nil || n > len(lines) || x.wild == "" {
			t.Errorf("%d request lines, but answer %d: %v, %q", len(lines), n+1, err, r)
			break
		}
		text = rest
	}
	unfolded := foldedLine.ReplaceAllString(x.wild, " ")
	head, _, _ := strings.Cut(strings.ReplaceAll(x.wild, "\r\n", "\n"), "\n\n")
	for _, line := range lines {
		if len(arrived) == 0 {
			break
		}
		a := arrived[0]
		if !strings.HasSuffix(line[1], a.start[0]) || !strings.HasSuffix(line[2], strings.TrimPrefix(a.start[1], basePath)) {
			continue
		}
		arrived = arrived[1:]
		a.requests++
		assert.Check(t, isSubsequence(a.body, x.wild), "a body that is not in the input: %q", a.body)
		for _, f := range a.fields {
			switch f.name {
			case "host", "content-length", "x-set":
			case "anthropic-beta":
				for _, token := range listed([]string{f.value}) {
					assert.Check(t, token == betaFlag || strings.Contains(unfolded, token), "a token that is not in the input: %q", token)
				}
			default:
				found := hasField(unfolded, f) || x.h2 && f.name == "cookie" && strings.Contains(unfolded, f.value) ||
					f == noCache && hasField(unfolded, field{"pragma", "no-cache"})
				assert.Check(t, found, "a header that is not in the input: %q", f)
			}
		}
		for _, name := range protected {
			n := len(regexp.MustCompile(`(?im)^`+name+`:`).FindAllString(head, -1))
			assert.Check(t, len(lines) > 1 || len(a.values(name)) == n, "%d lines of %s, and %q came in", n, name, head)
		}
	}
	return text, arrived
}

// checkLog checks that the log is JSON lines, tells of no mistake in the handlers and keeps the client's secrets.
func (x *trial) checkLog(t *testing.T, log string) {
	for line := range strings.Lines(log) {
		assert.Check(t, json.Valid([]byte(line)) && !strings.Contains(line, `"msg":"http: panic`) && !strings.Contains(line, "superfluous"), line)
	}
	var secrets []string
	for _, m := range secretLine.FindAllStringSubmatch(x.input, -1) {
		secrets = append(secrets, m[1])
	}
	for _, r := range x.plain {
		_, query, _ := strings.Cut(r.start[1], "?")
		secrets = append(secrets, query, r.body)
	}
	for _, secret := range secrets {
		known := len(secret) < 12 || strings.Count(x.input, secret) > 1 // it may stand in a path, which is logged
		assert.Check(t, known || !strings.Contains(log, secret), "a secret in the log: %q", secret)
	}
}
