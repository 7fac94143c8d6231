package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/basher83/anthropic-oauth-proxy/internal/header"
)

// message is a request.
type message struct {
	method, uri string
	http.Header
	body string
}

func (m *message) tokens(name string) []string { return listed(m.Values(name)) }

// listed returns the elements of a header whose lines are comma-separated lists.
func listed(lines []string) (tokens []string) {
	for token := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		if token = strings.Trim(token, " \t"); token != "" {
			tokens = append(tokens, token)
		}
	}
	return tokens
}

func containsFold(list []string, s string) bool {
	return slices.ContainsFunc(list, func(e string) bool { return strings.EqualFold(e, s) })
}

// errIncomplete means that the message may become complete with more bytes. Any other error is final.
var errIncomplete = errors.New("incomplete")

// readHead reads a start line and a header section. It accepts only what is strictly HTTP/1.1.
func readHead(s string) (m message, rest string, err error) {
	head, rest, whole := strings.Cut(s, "\r\n\r\n")
	if !whole {
		return m, s, errIncomplete
	}
	parts := strictHead.FindStringSubmatch(head + "\r\n")
	if parts == nil {
		return m, s, fmt.Errorf("malformed head %q", head)
	}
	fields, err := textproto.NewReader(bufio.NewReader(strings.NewReader(parts[3] + "\r\n"))).ReadMIMEHeader()
	return message{method: parts[1], uri: parts[2], Header: http.Header(fields)}, rest, err
}

// readBody reads the body. It accepts exactly one kind of framing in the header section.
func (m *message) readBody(s string) (rest string, err error) {
	framing := append(m.Values("content-length"), m.Values("transfer-encoding")...)
	switch {
	case len(framing) == 0:
		return s, nil
	case len(framing) == 1 && strings.EqualFold(framing[0], "chunked") && len(m.Values("content-length")) == 0:
		return m.readChunks(s)
	}
	n, err := strconv.ParseUint(strings.Join(framing, ","), 10, 31)
	if err != nil || len(m.Values("transfer-encoding")) > 0 {
		return s, fmt.Errorf("the body's framing is ambiguous or malformed: %q", framing)
	}
	if uint64(len(s)) < n {
		return s, errIncomplete
	}
	m.body = s[:n]
	return s[n:], nil
}

func (m *message) readChunks(s string) (rest string, err error) {
	for {
		line, after, whole := strings.Cut(s, "\r\n")
		if !whole {
			return s, errIncomplete
		}
		size, extension, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(size, 16, 31)
		switch {
		case err != nil || !isText(extension) || len(line) > 100:
			return s, fmt.Errorf("malformed chunk size %q", line)
		case n == 0 && strings.HasPrefix(after, "\r\n"): // trailers do not count as plain
			return after[2:], nil
		case uint64(len(after)) < n+2:
			return s, errIncomplete
		case after[n:n+2] != "\r\n":
			return s, fmt.Errorf("a chunk of %d bytes ends with %q", n, after[n:n+2])
		}
		m.body += after[:n]
		s = after[n+2:]
	}
}

// reply is the answer to one request.
type reply struct {
	*http.Response
	interim []int  // the informational status codes before it
	body    string //
	err     error  // why it is incomplete
}

func readReply(in *bufio.Reader, method string) (r reply) {
	for {
		if r.Response, r.err = http.ReadResponse(in, &http.Request{Method: method}); r.err != nil {
			return r
		}
		if r.StatusCode >= 200 {
			break
		}
		r.interim = append(r.interim, r.StatusCode)
	}
	body, err := io.ReadAll(r.Body)
	r.body, r.err = string(body), err
	return r
}

const tokenChars = "[-!#$%&'*+.^_`|~0-9A-Za-z]+"

var (
	token      = regexp.MustCompile("^" + tokenChars + "$")
	strictHead = regexp.MustCompile("^(" + tokenChars + ") ([^ [:cntrl:]]+) HTTP/1\\.1\r\n((?:" + tokenChars + ":[\t[:^cntrl:]]*\r\n)*)$")
	startLine  = regexp.MustCompile(`([!-~]+) ([^ \n]+) HTTP/\d\.\d\r?\n`)
	foldedLine = regexp.MustCompile(`[ \t]*\r?\n[ \t]+`)
	secrets    = regexp.MustCompile(`(?im)^(?:authorization|x-api-key|proxy-authorization|cookie):[ \t]*([!-~][ -~]*[!-~])[ \t]*\r?$|^[A-Z]+ [!-~]*?\?([!-~]+) HTTP`)

	originForm   = regexp.MustCompile(`^/(?:[!-$&->@-~]|%[0-9A-Fa-f]{2})*(?:\?[!-~]*)?$`)
	absoluteForm = regexp.MustCompile(`^http://[a-z0-9.-]+(/.*)$`)
	plainHost    = regexp.MustCompile(`^[A-Za-z0-9.-]+(?::[0-9]+)?$`)

	protected   = []string{"Authorization", "X-Api-Key"}
	localFields = regexp.MustCompile(`(?i)^(forwarded|via|cdn-loop|true-client-ip|x-(real|client|cluster-client)-ip|fastly-client-ip|(x-(original-)?forwarded|cf|fly|x-envoy|tailscale)-.*)$`)
)

// isHopByHop also returns true for Expect, which the service answers itself.
func isHopByHop(name string) bool {
	return name == "Expect" || slices.Contains(header.HopByHop, name)
}

func isText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// request is a plain request, and how the contract says it is handled.
type request struct {
	message
	target string // at the upstream; "" if the service answers itself
	status int    // of the service's own answer
	final  bool   // the service closes the connection after it
}

// predict reads the plain requests at the beginning of the input.
func predict(input string) (plain []request, wild string) {
	for input != "" {
		r, rest, ok := predictOne(input)
		if !ok {
			return plain, input
		}
		plain = append(plain, r)
		if r.final {
			return plain, "" // the rest is never read
		}
		input = rest
	}
	return plain, ""
}

// predictOne reads one request. ok is false if anything in it is unusual, even if it is legal.
func predictOne(s string) (r request, rest string, ok bool) {
	m, rest, err := readHead(s)
	target, asterisk := m.uri, m.method == "OPTIONS" && m.uri == "*"
	hosts, expect, agents := m.Values("host"), m.Values("expect"), m.Values("user-agent")
	if parts := absoluteForm.FindStringSubmatch(target); parts != nil {
		target = parts[1]
	}
	path, _, _ := strings.Cut(target, "?")
	own := path == "/health" || path == "/metrics"
	switch {
	case err != nil, len(s)-len(rest) > 32<<10, m.method == "CONNECT", !asterisk && !originForm.MatchString(target),
		len(hosts) != 1, !plainHost.MatchString(hosts[0]),
		len(expect) > 0 && (own || len(expect) > 1 || expect[0] != "100-continue"),
		len(agents) > 1, slices.Contains(agents, ""), len(m.Values("pragma")) > 0, len(m.Values("trailer")) > 0, // net/http changes these
		slices.ContainsFunc(m.tokens("connection"), func(name string) bool { return !token.MatchString(name) }):
		return r, s, false
	}
	r.target = basePath + target
	if asterisk {
		r.target = "*"
	}
	rest, err = m.readBody(rest)
	declared, _ := strconv.Atoi(strings.Join(m.Values("content-length"), ""))
	r.message, r.final = m, containsFold(m.tokens("connection"), "close")
	switch {
	case own:
		r.target, r.status = "", 200
		if m.method != "GET" && m.method != "HEAD" {
			r.status = 405
		}
	case (err == nil || err == errIncomplete) && max(declared, len(m.body)) > maxBody: // contract row 1.11
		r.target, r.status, r.final = "", 413, true
		return r, "", true
	}
	return r, rest, err == nil
}
