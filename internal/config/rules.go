package config

import (
	"fmt"
	"strings"
)

// reserved are the headers that no rule may name, and why.
var reserved = map[string]string{
	"authorization":       "the client's credentials pass unchanged",
	"x-api-key":           "the client's credentials pass unchanged",
	"host":                "it is always the upstream's own",
	"content-length":      "it follows from the body",
	"expect":              "it is answered here and not forwarded",
	"connection":          hopByHop,
	"keep-alive":          hopByHop,
	"proxy-authenticate":  hopByHop,
	"proxy-authorization": hopByHop,
	"proxy-connection":    hopByHop,
	"te":                  hopByHop,
	"trailer":             hopByHop,
	"transfer-encoding":   hopByHop,
	"upgrade":             hopByHop,
}

const hopByHop = "it is a hop-by-hop header and never forwarded"

// readRules replaces c's rules by the file's and reports what is wrong with each.
func (c *Config) readRules(list []any, report func(key, text string)) {
	c.Headers = []Header{}
	for i, element := range list {
		section := fmt.Sprintf("headers[%d]", i)
		rule, ok := element.(map[string]any)
		if !ok {
			report("headers", fmt.Sprintf("element %d must be a table with name, value and mode, not %s", i, show(element)))
			continue
		}
		text := func(key string) (s string, ok bool) {
			v, present := rule[key]
			if !present {
				return "", false
			}
			if s, ok = v.(string); !ok {
				report(section+"."+key, "must be a string, not "+show(v))
			}
			return s, ok
		}
		for _, key := range []string{"name", "value"} {
			if _, present := rule[key]; !present {
				report(section, fmt.Sprintf("needs a %s", key))
			}
		}
		h := Header{Mode: ModeSet}
		if s, ok := text("mode"); ok {
			if h.Mode = s; s != ModeSet && s != ModeAdd {
				report(section+".mode", fmt.Sprintf(`must be "set" or "add", not %q`, s))
			}
		}
		if s, ok := text("name"); ok {
			h.Name = s
			if !isToken(s) {
				report(section+".name", "must be a header name: letters, digits and any of !#$%&'*+-.^_`|~ (RFC 9110 section 5.6.2)")
			} else if why, ok := reserved[strings.ToLower(s)]; ok {
				report(section+".name", fmt.Sprintf("no rule may name %s: %s", strings.ToLower(s), why))
			}
		}
		if s, ok := text("value"); ok {
			h.Value = s
			if wrong := checkValue(s, h.Mode); wrong != "" {
				report(section+".value", wrong)
			}
		}
		c.Headers = append(c.Headers, h)
	}
}

// checkValue says what is wrong with a field value (RFC 9110 section 5.5), without repeating it.
func checkValue(s, mode string) string {
	for _, r := range []byte(s) {
		if r < ' ' && r != '\t' || r == 0x7f {
			return "must not contain control characters"
		}
	}
	if strings.Trim(s, " \t") != s {
		return "must not begin or end with white space"
	}
	if mode == ModeAdd && strings.Trim(s, ", \t") == "" {
		return `must name at least one token with mode = "add"`
	}
	return ""
}

// isToken reports whether s is a token (RFC 9110 section 5.6.2).
func isToken(s string) bool {
	for _, r := range []byte(s) {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", r) >= 0) {
			return false
		}
	}
	return s != ""
}
