package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// message is a request or a response.
type message struct {
	start    [3]string // of the start line
	fields   []field
	body     string
	trailers []field
}

type field struct{ name, value string } // the name in lower case

func (m *message) values(name string) (values []string) {
	for _, f := range m.fields {
		if f.name == name {
			values = append(values, f.value)
		}
	}
	return values
}

func (m *message) tokens(name string) []string { return listed(m.values(name)) }

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

// errIncomplete means that more bytes may make a message of what is there; any other error of a reader is final.
var errIncomplete = errors.New("incomplete")

// readHead reads a start line and a header section.
func readHead(s string) (m message, rest string, err error) {
	head, rest, whole := strings.Cut(s, "\r\n\r\n")
	if !whole {
		return m, s, errIncomplete
	}
	start, lines, _ := strings.Cut(head, "\r\n")
	if copy(m.start[:], strings.SplitN(start, " ", 3)) < 3 || !isText(start) {
		return m, s, fmt.Errorf("malformed start line %q", start)
	}
	m.fields, err = readFields(lines)
	return m, rest, err
}

func readFields(lines string) (fields []field, err error) {
	for line := range strings.SplitSeq(lines, "\r\n") {
		name, value, colon := strings.Cut(line, ":")
		switch {
		case lines == "":
		case !colon || !token.MatchString(name) || !isText(value):
			return nil, fmt.Errorf("malformed header line %q", line)
		default:
			fields = append(fields, field{strings.ToLower(name), strings.Trim(value, " \t")})
		}
	}
	return fields, nil
}

// readBody reads the body that the header section announces in its one way.
func (m *message) readBody(s string) (rest string, err error) {
	lengths, codings := m.values("content-length"), m.values("transfer-encoding")
	switch {
	case len(lengths)+len(codings) > 1:
		return s, fmt.Errorf("framed more than once: %q and %q", lengths, codings)
	case len(codings) == 1:
		if !strings.EqualFold(codings[0], "chunked") {
			return s, fmt.Errorf("transfer-encoding %q", codings[0])
		}
		return m.readChunks(s)
	case len(lengths) == 1:
		n, err := strconv.ParseUint(lengths[0], 10, 31)
		if err != nil {
			return s, fmt.Errorf("content-length %q", lengths[0])
		}
		if uint64(len(s)) < n {
			return s, errIncomplete
		}
		m.body = s[:n]
		return s[n:], nil
	}
	return s, nil
}

func (m *message) readChunks(s string) (rest string, err error) {
	for {
		line, after, whole := strings.Cut(s, "\r\n")
		if !whole {
			return s, errIncomplete
		}
		size, extension, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(size, 16, 31)
		if err != nil || !isText(extension) || len(line) > 100 {
			return s, fmt.Errorf("malformed chunk size %q", line)
		}
		if n == 0 {
			if rest, is := strings.CutPrefix(after, "\r\n"); is {
				return rest, nil
			}
			lines, rest, whole := strings.Cut(after, "\r\n\r\n")
			if !whole {
				return s, errIncomplete
			}
			m.trailers, err = readFields(lines)
			return rest, err
		}
		if uint64(len(after)) < n+2 {
			return s, errIncomplete
		}
		if after[n:n+2] != "\r\n" {
			return s, fmt.Errorf("a chunk of %d bytes ends with %q", n, after[n:n+2])
		}
		m.body += after[:n]
		s = after[n+2:]
	}
}

// response is a final response, and the status codes of those that came before it.
type response struct {
	message
	interim []string
}

// readResponse reads the next response to a request of the given method. ended says that s is all that comes.
func readResponse(s, method string, ended bool) (r response, rest string, err error) {
	for {
		if r.message, s, err = readHead(s); err != nil {
			return r, s, err
		}
		code := r.start[1]
		if !statusLine.MatchString(strings.Join(r.start[:], " ")) || !isText(r.start[2]) {
			return r, s, fmt.Errorf("malformed status line %q", r.start)
		}
		framed := len(r.values("content-length"))+len(r.values("transfer-encoding")) > 0
		for _, f := range r.fields {
			if slices.Contains(hopByHop, f.name) && f.name != "connection" && f.name != "transfer-encoding" && f.name != "trailer" || f.name == "x-hop" {
				return r, s, fmt.Errorf("%s has come to the client", f.name)
			}
		}
		switch {
		case code[0] == '1' || code == "204":
			if framed {
				return r, s, fmt.Errorf("status %s with a body", code)
			}
			if code == "204" {
				return r, s, nil
			}
			r.interim = append(r.interim, code)
			continue
		case method == "HEAD" || code == "304":
			return r, s, nil
		case framed:
			s, err = r.readBody(s)
			return r, s, err
		case !ended:
			return r, s, errIncomplete
		}
		r.body = s
		return r, "", nil
	}
}

var (
	token      = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")
	statusLine = regexp.MustCompile(`^HTTP/1\.[01] [1-5][0-9][0-9] `)
	startLine  = regexp.MustCompile(`([!-~]+) ([^ \n]+) HTTP/\d\.\d\r?\n`)
	foldedLine = regexp.MustCompile(`[ \t]*\r?\n[ \t]+`)
	secretLine = regexp.MustCompile(`(?im)^(?:authorization|x-api-key|proxy-authorization|cookie):[ \t]*([!-~][ -~]*[!-~])[ \t]*\r?$`)

	originForm   = regexp.MustCompile(`^/(?:[!-$&->@-~]|%[0-9A-Fa-f]{2})*(?:\?[!-~]*)?$`)
	absoluteForm = regexp.MustCompile(`^http://[a-z0-9.-]+(/.*)$`)
	plainHost    = regexp.MustCompile(`^[A-Za-z0-9.-]+(?::[0-9]+)?$`)

	protected = []string{"authorization", "x-api-key"}
	hopByHop  = []string{"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
		"transfer-encoding", "upgrade", "expect"} // and Expect, which is answered here
)

func isText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

func isLocalField(name string) bool {
	return name == "forwarded" || name == "x-real-ip" || strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "tailscale-")
}

func isSubsequence(part, whole string) bool {
	for i := 0; i < len(part); i++ {
		at := strings.IndexByte(whole, part[i])
		if at < 0 {
			return false
		}
		whole = whole[at+1:]
	}
	return true
}

// hasField reports whether a header with this value stands in s.
func hasField(s string, f field) bool {
	for i := 0; i+len(f.name) < len(s); i++ {
		if s[i+len(f.name)] == ':' && strings.EqualFold(s[i:i+len(f.name)], f.name) {
			if line, _, _ := strings.Cut(s[i+len(f.name)+1:], "\n"); strings.Trim(line, " \t\r") == f.value {
				return true
			}
		}
	}
	return false
}

// request is a plain request, and what the contract makes of it.
type request struct {
	message
	target string // at the upstream; "" if the service answers by itself
	status int    // of its own answer
	final  bool   // the service closes the connection after it
}

// predict reads the plain requests that the input begins with.
func predict(input string) (plain []request, wild string) {
	for input != "" {
		r, rest, ok := predictOne(input)
		if !ok {
			return plain, input
		}
		plain = append(plain, r)
		if r.final {
			return plain, "" // whatever follows is never read
		}
		input = rest
	}
	return plain, ""
}

// predictOne reads one request. It is not ok as soon as anything is unusual, even if it is legal.
func predictOne(s string) (r request, rest string, ok bool) {
	m, rest, err := readHead(s)
	method, target, version := m.start[0], m.start[1], m.start[2]
	hosts, expect := m.values("host"), m.values("expect")
	if err != nil || len(s)-len(rest) > 32<<10 || !token.MatchString(method) || method == "CONNECT" || len(hosts) != 1 || !plainHost.MatchString(hosts[0]) {
		return r, s, false
	}
	if parts := absoluteForm.FindStringSubmatch(target); parts != nil {
		target = parts[1]
	}
	path, _, _ := strings.Cut(target, "?")
	own := path == "/health" || path == "/metrics"
	switch {
	case version == "HTTP/1.0":
		r.final = true
		if len(m.values("connection"))+len(m.values("transfer-encoding"))+len(expect) > 0 {
			return r, s, false
		}
	case version != "HTTP/1.1", len(expect) > 1, len(expect) == 1 && (expect[0] != "100-continue" || own):
		return r, s, false
	}
	switch {
	case originForm.MatchString(target):
		r.target = basePath + target
	case target == "*" && method == "OPTIONS":
		r.target = target
	default:
		return r, s, false
	}
	for _, name := range m.tokens("connection") {
		if !token.MatchString(name) {
			return r, s, false
		}
	}
	for _, name := range m.tokens("trailer") {
		if name = strings.ToLower(name); !token.MatchString(name) || name == "trailer" || name == "transfer-encoding" || name == "content-length" {
			return r, s, false
		}
	}
	rest, err = m.readBody(rest)
	declared, _ := strconv.Atoi(strings.Join(m.values("content-length"), ""))
	r.message, r.final = m, r.final || containsFold(m.tokens("connection"), "close")
	switch {
	case own:
		r.target, r.status = "", 200
		if method != "GET" && method != "HEAD" {
			r.status = 405
		}
	case (err == nil || err == errIncomplete) && max(declared, len(m.body)) > maxBody: // contract row 1.11
		r.target, r.status, r.final = "", 400, true
		return r, "", true
	}
	return r, rest, err == nil && len(fmt.Sprint(m.trailers)) < 1000
}

func (r *request) same(a *arrival) bool { return r.start[0] == a.start[0] && r.target == a.start[1] }
