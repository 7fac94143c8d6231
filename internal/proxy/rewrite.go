package proxy

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/basher83/anthropic-oauth-proxy/internal/header"
)

// Rule adds a header, or a token to a header, of every request.
type Rule struct {
	Name  string // canonical form is not needed
	Value string
	Add   bool // append Value's tokens to the header's list; otherwise replace the header
}

// rewrite turns the client's request into the upstream's. It changes the exchange's own copy.
func (p *proxy) rewrite(r *http.Request) *http.Request {
	r.URL = exchangeFrom(r.Context()).upstreamURL
	r.Host = r.URL.Host
	r.Close = false
	r.Trailer = nil // the whole body has been read, so it has a length and no trailers
	h := r.Header
	header.RemoveHopByHop(h)
	delete(h, "Expect") // it has been answered here
	for name, values := range h {
		if isLocal(name) {
			delete(h, name)
			continue
		}
		for i, value := range values {
			values[i] = textproto.TrimString(value) // net/http leaves white space where a folded line ended
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

// isLocal reports whether a header was added by the hop in front, about itself or its client. name is canonical. These headers must
// not leave the tailnet. Also, an API behind a CDN refuses requests with that CDN's own headers (contract row 1.5).
func isLocal(name string) bool {
	if slices.Contains(local, name) {
		return true
	}
	for _, prefix := range localPrefixes {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

var (
	local = []string{"Forwarded", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Via", "Cdn-Loop",
		"Fastly-Client-Ip"}
	localPrefixes = []string{"X-Forwarded-", "X-Original-Forwarded-", "Cf-", "Fly-", "X-Envoy-", "Tailscale-"}
)

// apply applies one rule (contract rows 1.7 and 1.8).
func (r Rule) apply(h http.Header) {
	name := textproto.CanonicalMIMEHeaderKey(r.Name)
	if !r.Add {
		h[name] = []string{r.Value}
		return
	}
	var present, missing []string
	for _, line := range h[name] {
		present = slices.AppendSeq(present, header.Tokens(line))
	}
	for token := range header.Tokens(r.Value) {
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
