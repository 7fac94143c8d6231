package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// setting is one key of the file. apply stores the value or says what would be right.
type setting struct {
	key   string
	apply func(c *Config, value any) string
}

var settings = []setting{
	{"proxy.listen_addr", setListenAddr},
	{"proxy.upstream_url", setUpstreamURL},
	{"proxy.timeout_secs", integer(1, maxSecs, func(c *Config) *int64 { return &c.Proxy.TimeoutSecs })},
	{"proxy.retries", integer(0, 5, func(c *Config) *int64 { return &c.Proxy.Retries })},
	{"proxy.max_connections", integer(1, maxCount, func(c *Config) *int64 { return &c.Proxy.MaxConnections })},
	{"proxy.max_body_bytes", integer(1, maxBytes, func(c *Config) *int64 { return &c.Proxy.MaxBodyBytes })},
	{"proxy.max_buffered_bytes", integer(1, maxBytes, func(c *Config) *int64 { return &c.Proxy.MaxBufferedBytes })},
	{"proxy.drain_timeout_secs", integer(0, maxSecs, func(c *Config) *int64 { return &c.Proxy.DrainTimeoutSecs })},
}

var ruleKey = regexp.MustCompile(`^headers\[\d+\]\.(name|value|mode)$`)

// readFile applies the file's settings to c and returns all that is wrong with them.
func (c *Config) readFile(data []byte) (problems Problems) {
	var root map[string]any
	if err := toml.Unmarshal(data, &root); err != nil {
		p := Problem{Source: c.File, Text: "not valid TOML: " + strings.TrimPrefix(err.Error(), "toml: ")}
		var decode *toml.DecodeError
		if errors.As(err, &decode) {
			p.Line, _ = decode.Position()
		}
		return Problems{p}
	}
	entries := index(data)
	lines := map[string]int{}
	report := func(key, text string) {
		problems = append(problems, Problem{Source: c.File, Line: lines[key], Key: key, Text: text})
	}
	skip := "" // the children of a key that was reported are not worth a line each
	for _, e := range entries {
		if lines[e.key] == 0 {
			lines[e.key] = e.line
		}
		if skip != "" && (strings.HasPrefix(e.key, skip+".") || strings.HasPrefix(e.key, skip+"[")) {
			continue
		}
		skip = ""
		switch apply := applyFor(e.key); {
		case apply != nil:
			if text := apply(c, lookup(root, e.key)); text != "" {
				report(e.key, text)
				skip = e.key
			}
		case e.key == "tailscale", strings.HasPrefix(e.key, "tailscale."), strings.HasPrefix(e.key, "tailscale["):
			if len(c.Warnings) == 0 {
				c.Warnings = append(c.Warnings, fmt.Sprintf("%s:%d: the section [tailscale] is ignored and may be deleted", c.File, e.line))
			}
		case e.key == "proxy":
			if _, ok := root["proxy"].(map[string]any); !ok {
				report(e.key, "must be a section, [proxy]")
			}
		case e.key == "headers":
			if _, ok := root["headers"].([]any); !ok {
				report(e.key, "must be a list of rules: [[headers]] sections, or headers = [] for none")
				skip = e.key
			}
		case strings.HasPrefix(e.key, "headers["): // checked below, rule by rule
			if strings.Contains(e.key, ".") && !ruleKey.MatchString(e.key) {
				report(e.key, "unknown key; a rule has name, value and mode")
				skip = e.key
			}
		default:
			report(e.key, unknown(e.key))
			skip = e.key
		}
	}
	if headers, ok := root["headers"].([]any); ok {
		c.readRules(headers, report)
	}
	if c.Proxy.MaxBufferedBytes < c.Proxy.MaxBodyBytes {
		key := "proxy.max_buffered_bytes"
		if lines[key] == 0 {
			key = "proxy.max_body_bytes" // the other is the default
		}
		report(key, fmt.Sprintf("max_buffered_bytes (%d) must be at least max_body_bytes (%d)", c.Proxy.MaxBufferedBytes, c.Proxy.MaxBodyBytes))
	}
	return problems
}

func applyFor(key string) func(*Config, any) string {
	for _, s := range settings {
		if s.key == key {
			return s.apply
		}
	}
	return nil
}

func unknown(key string) string {
	if !strings.HasPrefix(key, "proxy.") {
		return "unknown; a configuration has the sections [proxy] and [[headers]]"
	}
	names := make([]string, len(settings))
	for i, s := range settings {
		names[i] = strings.TrimPrefix(s.key, "proxy.")
	}
	return "unknown key; [proxy] has " + strings.Join(names, ", ")
}

// lookup returns the value of a dotted key without array indices.
func lookup(root map[string]any, key string) any {
	var v any = root
	for part := range strings.SplitSeq(key, ".") {
		table, _ := v.(map[string]any)
		v = table[part]
	}
	return v
}
