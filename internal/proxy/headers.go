package proxy

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/basher83/anthropic-oauth-proxy/internal/target"
)

// Rule adds a header, or a token to a header, of every request.
type Rule struct {
	Name  string // canonical form is not needed
	Value string
	Add   bool // append Value's tokens to the header's list; otherwise replace the header
}

// rewrite turns the client's request, which is the exchange's own copy, into the upstream's.
func (p *proxy) rewrite(r *http.Request) *http.Request {
	r.URL = exchangeFrom(r.Context()).upstreamURL
	r.Host = r.URL.Host
	r.Close = false
	r.Trailer = nil // the body was read to its end, so its length is known and nothing can trail it
	h := r.Header
	removeHopByHop(h)
	delete(h, "Expect") // answered here
	for name := range h {
		if isLocal(name) {
			delete(h, name)
		}
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = []string{""} // net/http would invent one
	}
	for _, rule := range p.Rules {
		rule.apply(h)
	}
	return r
}

// isLocal reports whether a header, by its canonical name, speaks of the tailnet and stays there (contract row 1.5).
func isLocal(name string) bool {
	return name == "Forwarded" || name == "X-Real-Ip" || strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "Tailscale-")
}

// removeHopByHop removes the headers that concern one connection only (RFC 9110 section 7.6.1). The credentials stay even if
// Connection names them (contract row 1.4).
func removeHopByHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range tokens(line) {
			if name = textproto.CanonicalMIMEHeaderKey(name); name != "Authorization" && name != "X-Api-Key" {
				delete(h, name)
			}
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te",
	"Trailer", "Transfer-Encoding", "Upgrade"}

// apply carries out one rule (contract rows 1.7 and 1.8).
func (r Rule) apply(h http.Header) {
	name := textproto.CanonicalMIMEHeaderKey(r.Name)
	if !r.Add {
		h[name] = []string{r.Value}
		return
	}
	var present, missing []string
	for _, line := range h[name] {
		present = slices.AppendSeq(present, tokens(line))
	}
	for token := range tokens(r.Value) {
		if !slices.Contains(present, token) && !slices.Contains(missing, token) {
			missing = append(missing, token)
		}
	}
	if len(missing) == 0 {
		return
	}
	added := strings.Join(missing, ",")
	lines := h[name]
	if len(lines) == 0 {
		h[name] = []string{added}
		return
	}
	lines = slices.Clone(lines)
	last := &lines[len(lines)-1]
	if head := textproto.TrimString(*last); head != "" && !strings.HasSuffix(head, ",") {
		*last += ","
	}
	*last += added
	h[name] = lines
}

// tokens yields the elements of a comma-separated list (RFC 9110 section 5.6.1), without the empty ones.
func tokens(line string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for token := range strings.SplitSeq(line, ",") {
			if token = textproto.TrimString(token); token != "" && !yield(token) {
				return
			}
		}
	}
}

// locate finds the request's URL at the upstream, or refuses: CONNECT asks for a tunnel, which this is not, and a target
// without a path has no place upstream (contract rows 1.1 and 1.2).
func (p *proxy) locate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeFrom(r.Context())
		if r.ProtoMajor != 1 { // net/http hands the preface of HTTP/2, "PRI * HTTP/2.0", to the handler
			w.Header().Set("Connection", "close")
			p.refuse(w, x, http.StatusHTTPVersionNotSupported, "only HTTP/1.1 is spoken here, HTTP/2 without TLS is not")
			return
		}
		if r.Method == http.MethodConnect {
			w.Header().Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
			p.refuse(w, x, http.StatusMethodNotAllowed, "CONNECT is not supported: this is no forward proxy")
			return
		}
		url, err := target.Join(p.Upstream, r.RequestURI, r.URL)
		if err != nil {
			p.refuse(w, x, http.StatusBadRequest, err.Error())
			return
		}
		x.upstreamURL = url
		next.ServeHTTP(w, r)
	})
}
