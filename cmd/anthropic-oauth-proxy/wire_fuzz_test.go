package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
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
	dialled, err := net.Dial("tcp", addr)
	assert.NilError(t, err)
	conn := dialled.(*net.TCPConn)
	conn.SetReadDeadline(time.Now().Add(patience))
	end, sent := make(chan struct{}), make(chan struct{})
	finish := sync.OnceFunc(func() { close(end) })
	go func() {
		defer close(sent)
		io.WriteString(conn, x.input[:x.cut])
		io.WriteString(conn, x.input[x.cut:])
		if !x.leaves {
			<-end
		}
		conn.CloseWrite()
	}()
	in := bufio.NewReader(conn)
	for i, whole := 0, true; whole && i < len(x.plain); i++ {
		r := readReply(in, x.plain[i].start[0])
		x.replies, whole, err = append(x.replies, r), r.err == nil, r.err
	}
	if x.wild != "" {
		time.AfterFunc(50*time.Millisecond, finish) // a body of the wild part may have swallowed the last request
	} else {
		finish()
	}
	rest, readErr := io.ReadAll(in)
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
		for _, f := range a.fields {
			assert.Check(t, !isHopByHop(f.name) && !localFields.MatchString(f.name), "%s has been forwarded", f.name)
		}
		assert.Check(t, a.fault == nil && len(a.values("host")) == 1 && a.start[0] != "CONNECT" &&
			slices.Equal(a.values("x-set"), []string{"ours"}) && slices.Contains(a.tokens("anthropic-beta"), betaFlag), "upstream: %+v", a)
	}
	arrived, wild := x.arrived, x.wild
	for i, r := range x.replies {
		want := x.plain[i]
		var a *arrival
		if want.target != "" {
			if len(arrived) > 0 && want.start[0] == arrived[0].start[0] && want.target == arrived[0].start[1] {
				a, arrived = &arrived[0], arrived[1:]
				want.checkForwarded(t, a)
			} else {
				assert.Check(t, x.leaves, "request %d has not been forwarded", i)
			}
		}
		breaks := want.target != "" && (a == nil || a.answer.broken && want.start[0] != "HEAD")
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
	fields := func(from []field, without []string) map[string][]string {
		all := map[string][]string{"x-set": {"ours"}}
		for _, f := range from {
			own := f.name == "host" || f.name == "content-length" || f.name == "x-set" || isHopByHop(f.name) || localFields.MatchString(f.name)
			if !own && (slices.Contains(protected, f.name) || !containsFold(without, f.name)) {
				all[f.name] = append(all[f.name], f.value)
			}
		}
		return all
	}
	want, got := fields(r.fields, r.tokens("connection")), fields(a.fields, nil)
	if lines := want["anthropic-beta"]; !slices.Contains(listed(lines), betaFlag) {
		assert.Check(t, slices.Equal(listed(got["anthropic-beta"]), append(listed(lines), betaFlag)), "anthropic-beta is %q", got["anthropic-beta"])
		delete(want, "anthropic-beta")
		delete(got, "anthropic-beta")
	}
	assert.Check(t, a.body == r.body, "the body is %q, not %q", a.body, r.body)
	assert.DeepEqual(t, got, want)
}

// checkAnswer checks the answer to a plain request. a is the request upstream, if it was forwarded.
func (r *request) checkAnswer(t *testing.T, got reply, a *arrival, log string) {
	t.Helper()
	status, isHead := r.status, r.start[0] == "HEAD"
	var interim []int
	if len(r.values("expect")) > 0 && status != 413 && (r.body != "" || len(r.values("transfer-encoding")) > 0) {
		interim = append(interim, 100)
	}
	if a != nil {
		status = a.answer.status
		if a.answer.early {
			interim = append(interim, 103)
		}
	}
	assert.Check(t, got.StatusCode == status, "%s %s: status %d, not %d", r.start[0], r.start[1], got.StatusCode, status)
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
		if len(arrived) == 0 || !strings.HasSuffix(line[1], arrived[0].start[0]) || !strings.HasSuffix(line[2], strings.TrimPrefix(arrived[0].start[1], basePath)) {
			continue
		}
		a := arrived[0]
		arrived = arrived[1:]
		assert.Check(t, isSubsequence(a.body, x.wild), "a body that is not in the input: %q", a.body)
		for _, f := range a.fields {
			switch f.name {
			case "host", "content-length", "x-set":
			case "anthropic-beta":
				for _, token := range listed([]string{f.value}) {
					assert.Check(t, token == betaFlag || strings.Contains(unfolded, token), "a token that is not in the input: %q", token)
				}
			default:
				found := strings.Contains(strings.ToLower(unfolded), f.name+":") && strings.Contains(unfolded, f.value)
				madeUp := f == field{"cache-control", "no-cache"} // net/http adds it for a Pragma
				assert.Check(t, found || madeUp, "a header that is not in the input: %q", f)
			}
		}
		head, _, _ := strings.Cut(strings.ReplaceAll(x.wild, "\r\n", "\n"), "\n\n")
		for _, name := range protected {
			n := strings.Count(strings.ToLower(head), "\n"+name+":")
			assert.Check(t, len(lines) > 1 || len(a.values(name)) == n, "%d lines of %s, and %q came in", n, name, head)
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
