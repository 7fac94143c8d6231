package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// FuzzWire writes arbitrary bytes to one connection of the whole service and reads everything that comes back. An upstream with its own
// strict parser, without net/http, records everything that arrives there. The same parser reads the input. As long as the input is plain
// HTTP, the test knows every byte that must be answered and that must arrive upstream. The rest of the input is the "wild" part, which the
// service may refuse or forward. What it forwards of it must occur in the input, and not more often than there.
//
// cut is where a second segment begins. The lowest bit of how says how the client ends. Bits 4 to 7 choose the upstream's answer to the
// first request, and bits 8 to 11 those to the others.
func FuzzWire(f *testing.F) {
	before := runtime.NumGoroutine()
	f.Cleanup(func() { // the first one registered runs last
		poll.WaitOn(f, func(poll.LogT) poll.Result {
			if runtime.NumGoroutine() <= before+5 {
				return poll.Success()
			}
			stacks := make([]byte, 64<<10)
			return poll.Continue("there were %d goroutines before, and these are left: %s", before, stacks[:runtime.Stack(stacks, true)])
		}, poll.WithTimeout(patience))
	})
	file := writeConfig(f, "[proxy]", "max_body_bytes = 2000", "max_buffered_bytes = 4000", "[[headers]]", `name = "anthropic-beta"`,
		`value = "oauth-2025-04-20"`, `mode = "add"`, "[[headers]]", `name = "x-set"`, `value = "ours"`)
	for i, seed := range wireSeeds {
		f.Add([]byte(seed), uint16(len(seed)/3), uint16(i%len(answers)<<4))
		f.Add([]byte(seed), uint16(i), uint16(leaves))
	}
	for i := range answers { // to a first request and to a later one
		f.Add([]byte(plainPost+plainGet+plainPost), uint16(len(plainPost)), uint16(i<<4))
		f.Add([]byte(plainGet+plainPost+plainGet), uint16(len(plainGet)), uint16(i<<8))
		f.Add([]byte(strings.Replace(plainGet, "GET", "HEAD", 1)+plainGet), uint16(i), uint16(i<<4|i<<8))
		f.Add([]byte(strings.Replace(plainGet, "1.1", "1.0", 1)), uint16(i), uint16(i<<4))
	}
	f.Fuzz(func(t *testing.T, input []byte, cut, how uint16) {
		if len(input) > 128<<10 {
			return
		}
		upstream := newRecordingUpstream(t, int(how>>4&15)%len(answers), int(how>>8&15)%len(answers))
		p, signals := runHere(t, "--log-level", "debug", "--config", file, "--upstream", "http://"+upstream.Addr().String()+basePath)
		x := &trial{input: string(input), cut: min(int(cut), len(input)), leaves: how&leaves != 0}
		if !x.leaves {
			x.input += lastRequest
		}
		x.plain, x.wild = predict(x.input)
		x.talk(t, p.addr)
		for _, gauge := range []string{"proxy_requests_in_flight", "proxy_requests_queued", "proxy_held_body_bytes"} {
			p.pollMetric(gauge + " 0")
		}
		signals <- syscall.SIGTERM
		assert.Equal(t, p.exit(), 0)
		x.arrived = upstream.end()
		x.check(t, p.stderr.text())
	})
}

const (
	// leaves means that the client closes its side right after the last byte, so the service may cancel unfinished requests (contract
	// row 2.8). Otherwise it sends one more plain request and waits, which reveals the effects of a wild part.
	leaves      = 1
	basePath    = "/base"
	maxBody     = 2000
	betaFlag    = "oauth-2025-04-20"
	lastRequest = "GET /last HTTP/1.1\r\nHost: proxy.test\r\nConnection: close\r\n\r\n"
)

// trial is one input and its results.
type trial struct {
	input  string
	cut    int
	leaves bool

	plain   []request // the beginning of the input
	wild    string    // the rest of the input
	replies []reply   // to the plain requests, up to the first incomplete one
	rest    string    // what the client received after them
	arrived []arrival // what arrived upstream
}

// talk sends the input and reads until the service closes the connection.
func (x *trial) talk(t *testing.T, addr string) {
	t.Helper()
	conn := dial(t, addr)
	end, sent := make(chan struct{}), make(chan struct{})
	finish := sync.OnceFunc(func() { close(end) })
	go func() {
		defer close(sent)
		io.WriteString(conn, x.input[:x.cut])
		io.WriteString(conn, x.input[x.cut:])
		if !x.leaves {
			<-end
		}
		conn.Conn.(*net.TCPConn).CloseWrite()
	}()
	var err error
	for i, whole := 0, true; whole && i < len(x.plain); i++ {
		r := readReply(conn.in, x.plain[i].method)
		x.replies, whole, err = append(x.replies, r), r.err == nil, r.err
	}
	if x.wild != "" {
		time.AfterFunc(50*time.Millisecond, finish) // a body of the wild part may have swallowed the last request
	} else {
		finish()
	}
	rest, readErr := io.ReadAll(conn.in)
	x.rest, err = string(rest), errors.Join(err, readErr)
	assert.Check(t, !errors.Is(err, os.ErrDeadlineExceeded), "%d of %d requests answered after %v", len(x.replies), len(x.plain), patience)
	conn.Close()
	finish()
	<-sent
}

// check compares the answers, the requests upstream and the log with the input.
func (x *trial) check(t *testing.T, log string) {
	t.Helper()
	t.Logf("plain: %d requests, wild: %q\nreplies: %+v, then %q\nupstream: %+v\nlog:\n%s", len(x.plain), x.wild, x.replies, x.rest, x.arrived, log)
	x.checkLog(t, log)
	for _, a := range x.arrived {
		for name := range a.Header {
			assert.Check(t, !isHopByHop(name) && !localFields.MatchString(name), "%s has been forwarded", name)
		}
		assert.Check(t, a.fault == nil && len(a.Values("host")) == 1 && a.method != "CONNECT" &&
			slices.Equal(a.Values("x-set"), []string{"ours"}) && slices.Contains(a.tokens("anthropic-beta"), betaFlag), "upstream: %+v", a)
	}
	arrived, wild := x.arrived, x.wild
	for i, r := range x.replies {
		want := x.plain[i]
		var a *arrival
		if want.target != "" {
			if len(arrived) > 0 && want.method == arrived[0].method && want.target == arrived[0].uri {
				a, arrived = &arrived[0], arrived[1:]
				want.checkForwarded(t, a)
			} else {
				assert.Check(t, x.leaves, "request %d has not been forwarded", i)
			}
		}
		breaks := want.target != "" && (a == nil || a.answer.broken && want.method != "HEAD")
		if breaks || x.leaves && r.err != nil {
			assert.Check(t, r.err != nil, "a truncated answer looks complete")
			wild = ""
			break
		}
		assert.NilError(t, r.err)
		want.checkAnswer(t, r, a, log)
	}
	if wild != "" {
		arrived = x.checkWild(t, arrived)
	}
	assert.Check(t, len(arrived) == 0 && (wild != "" || x.rest == ""), "nothing in the input explains %d requests upstream, or the answer %q", len(arrived), x.rest)
}

// checkForwarded compares a plain request with the one that arrived upstream (contract rows 1.1 to 1.10).
func (r *request) checkForwarded(t *testing.T, a *arrival) {
	t.Helper()
	endToEnd := func(from http.Header, named []string) http.Header {
		all := from.Clone()
		maps.DeleteFunc(all, func(name string, _ []string) bool {
			own := name == "Host" || name == "Content-Length" || isHopByHop(name) || localFields.MatchString(name)
			return own || containsFold(named, name) && !slices.Contains(protected, name)
		})
		all["X-Set"] = []string{"ours"}
		return all
	}
	want, got := endToEnd(r.Header, r.tokens("connection")), endToEnd(a.Header, nil)
	if lines := want["Anthropic-Beta"]; !slices.Contains(listed(lines), betaFlag) {
		assert.Check(t, slices.Equal(listed(got["Anthropic-Beta"]), append(listed(lines), betaFlag)), "anthropic-beta is %q", got["Anthropic-Beta"])
		delete(want, "Anthropic-Beta")
		delete(got, "Anthropic-Beta")
	}
	assert.Check(t, a.body == r.body, "the body is %q, not %q", a.body, r.body)
	assert.DeepEqual(t, got, want)
}

// checkAnswer checks the answer to a plain request. a is the request upstream, if it was forwarded.
func (r *request) checkAnswer(t *testing.T, got reply, a *arrival, log string) {
	t.Helper()
	status, isHead := r.status, r.method == "HEAD"
	var interim []int
	if len(r.Values("expect")) > 0 && status != 413 && (r.body != "" || len(r.Values("transfer-encoding")) > 0) {
		interim = append(interim, 100)
	}
	if a != nil {
		status = a.answer.status
		if a.answer.early {
			interim = append(interim, 103)
		}
	}
	assert.Check(t, got.StatusCode == status, "%s %s: status %d, not %d", r.method, r.uri, got.StatusCode, status)
	assert.Check(t, slices.Equal(got.interim, interim), "interim responses: %v, not %v", got.interim, interim)
	assert.Check(t, got.Close == r.final, "the connection: is it the last answer? %v", r.final)
	for name := range got.Header {
		own := name == "Connection" || name == "Trailer"
		assert.Check(t, own || name != "X-Hop" && !isHopByHop(name), "%s has reached the client", name)
	}
	if a != nil && status != 502 {
		assert.Check(t, got.body == a.answer.body || isHead && got.body == "", "the body is %q, not %q", got.body, a.answer.body)
		assert.Check(t, slices.Equal(got.Header["X-Answer"], []string{"one", "two"}), "the answer's headers are %q", got.Header)
		assert.Check(t, (len(got.Trailer) > 0) == (a.answer.trailer && !isHead), "the answer's trailers are %q", got.Trailer)
	}
	if a != nil || status == 413 {
		ours := strings.HasPrefix(got.body, `{"type":"error","error":{"type":"proxy_error"`)
		assert.Check(t, isHead || ours == (status == 413 || status == 502), "the error is %q", got.body)
		id := got.Header["X-Proxy-Request-Id"]
		assert.Check(t, len(id) == 1 && strings.Count(log, `"request_id":"`+id[0]+`"`) == 1, "the id, which is to be unique, is %q", id)
	}
}

// checkWild checks the requests upstream that came from a wild part. It returns those that nothing in that part explains.
func (x *trial) checkWild(t *testing.T, arrived []arrival) []arrival {
	lines := startLine.FindAllStringSubmatch(x.wild, -1)
	unfolded := foldedLine.ReplaceAllString(x.wild, " ")
	for _, line := range lines {
		if len(arrived) == 0 {
			break
		}
		a := arrived[0]
		if !strings.HasSuffix(line[1], a.method) || !strings.HasSuffix(line[2], strings.TrimPrefix(a.uri, basePath)) {
			continue
		}
		arrived = arrived[1:]
		assert.Check(t, isSubsequence(a.body, x.wild), "a body that is not in the input: %q", a.body)
		for name, values := range a.Header {
			switch name {
			case "Host", "Content-Length", "X-Set":
				continue
			case "Anthropic-Beta":
				values = slices.DeleteFunc(listed(values), func(token string) bool { return token == betaFlag })
			}
			named := strings.Contains(strings.ToLower(unfolded), strings.ToLower(name)+":")
			for _, value := range values {
				madeUp := name == "Cache-Control" && value == "no-cache" // net/http adds it for a Pragma
				assert.Check(t, madeUp || named && strings.Contains(unfolded, value), "it is not in the input: %s: %q", name, value)
			}
		}
		head, _, _ := strings.Cut(strings.ReplaceAll(x.wild, "\r\n", "\n"), "\n\n")
		for _, name := range protected {
			n := strings.Count(strings.ToLower(head), "\n"+strings.ToLower(name)+":")
			assert.Check(t, len(lines) > 1 || len(a.Values(name)) == n, "%d lines of %s, and %q came in", n, name, head)
		}
	}
	return arrived
}

func isSubsequence(part, whole string) bool {
	for i := 0; i < len(whole) && part != ""; i++ {
		if whole[i] == part[0] {
			part = part[1:]
		}
	}
	return part == ""
}

// checkLog checks that the log has only JSON lines, reports no mistake in the handlers and contains no secret of the client.
func (x *trial) checkLog(t *testing.T, log string) {
	for line := range strings.Lines(log) {
		assert.Check(t, json.Valid([]byte(line)) && !strings.Contains(line, `"msg":"http: panic`) && !strings.Contains(line, "superfluous"), line)
	}
	for _, m := range secrets.FindAllStringSubmatch(x.input, -1) {
		secret := m[1] + m[2]
		known := len(secret) < 12 || strings.Count(x.input, secret) > 1 // it may be part of a path, which is logged
		assert.Check(t, known || !strings.Contains(log, secret), "a secret in the log: %q", secret)
	}
}
