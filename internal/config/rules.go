package config

import (
	"fmt"
	"net/textproto"
	"slices"
	"strings"

	"github.com/basher83/anthropic-oauth-proxy/internal/header"
)

// reserved are the headers that no rule may name, with the reason. Hop-by-hop headers are reserved too.
var reserved = map[string]string{
	"Authorization":  "the client's credentials pass unchanged",
	"X-Api-Key":      "the client's credentials pass unchanged",
	"Host":           "it is always the upstream's own",
	"Content-Length": "it follows from the body",
	"Expect":         "it is answered here and not forwarded",
}

// readRules replaces the built-in rule by those of the file.
func (r *reader) readRules(list []any) {
	r.Headers = []Header{}
	for i, element := range list {
		path := fmt.Sprintf("headers[%d]", i)
		rule, ok := element.(map[string]any)
		if !ok {
			r.report("headers", fmt.Sprintf("element %d must be a table with name, value and mode, not %s", i, show(element)))
			continue
		}
		var h Header
		r.readTable(path, rule, []key{
			text("name", &h.Name, "", checkName),
			text("value", &h.Value, "", checkValue),
			text("mode", &h.Mode, ModeSet, checkMode),
		}, "a rule")
		if _, given := rule["mode"]; !given && h.isBeta() {
			h.Mode = ModeAdd // the replaced service had no modes and merged this header
		}
		for _, name := range []string{"name", "value"} {
			if _, ok := rule[name]; !ok {
				r.report(path, "needs a "+name)
			}
		}
		if h.Mode == ModeAdd && rule["value"] == any(h.Value) && strings.Trim(h.Value, ", \t") == "" {
			r.report(path+".value", `must have at least one token: mode "add" appends tokens`)
		}
		r.Headers = append(r.Headers, h)
	}
}

func checkName(s string) string {
	if s == "" || strings.Trim(s, tokenChars) != "" {
		return "must be a header name: letters, digits and any of !#$%&'*+-.^_`|~ (RFC 9110 section 5.6.2)"
	}
	canonical := textproto.CanonicalMIMEHeaderKey(s)
	why := reserved[canonical]
	if slices.Contains(header.HopByHop, canonical) {
		why = "it is a hop-by-hop header and never forwarded"
	}
	if why != "" {
		return fmt.Sprintf("no rule may name %s: %s", strings.ToLower(s), why)
	}
	return ""
}

const tokenChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~"

// checkValue returns what is wrong with a field value (RFC 9110 section 5.5). It does not repeat the value.
func checkValue(s string) string {
	switch {
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return "must not contain control characters"
	case strings.Trim(s, " \t") != s:
		return "must not begin or end with white space"
	}
	return ""
}

func checkMode(s string) string {
	if s != ModeSet && s != ModeAdd {
		return fmt.Sprintf(`must be "set" or "add", not %q`, s)
	}
	return ""
}
