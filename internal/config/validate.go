package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Upper limits, far beyond sense but within the types that the values become.
const (
	maxSecs  = 365 * 24 * 3600
	maxBytes = 1 << 40
	maxCount = 1 << 30
)

// integer returns the setter of a whole number between least and most.
func integer(least, most int64, field func(*Config) *int64) func(*Config, any) string {
	return func(c *Config, v any) string {
		n, ok := v.(int64)
		if !ok || n < least || n > most {
			return fmt.Sprintf("must be a whole number from %d to %d, not %v", least, most, show(v))
		}
		*field(c) = n
		return ""
	}
}

// show prints a value of the file as it would stand there.
func show(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case map[string]any:
		return "a table"
	case []any:
		return "an array"
	}
	return fmt.Sprint(v)
}

func setListenAddr(c *Config, v any) string {
	const right = `must be "host:port" with a port from 0 to 65535, such as "127.0.0.1:8080"`
	s, ok := v.(string)
	if !ok {
		return fmt.Sprintf("%s, not %s", right, show(v))
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil || strings.ContainsAny(host, " /@?#") {
		return fmt.Sprintf("%s, not %q", right, s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Sprintf("%s, not %q", right, s)
	}
	c.Proxy.ListenAddr = s
	return ""
}

func setUpstreamURL(c *Config, v any) string {
	const right = `must be an http or https URL with a host and perhaps a path, such as "https://api.anthropic.com"`
	s, ok := v.(string)
	if !ok {
		return fmt.Sprintf("%s, not %s", right, show(v))
	}
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Opaque != "":
		return right // the value is not repeated: it may hold a password
	case u.User != nil:
		return right + "; credentials do not belong in it, they come with each request"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#"):
		return right + ", without query and fragment"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return right + ", and a port from 1 to 65535"
		}
	}
	c.Proxy.UpstreamURL = s
	return ""
}

// warn notes what is allowed but probably not meant.
func (c *Config) warn() {
	if u, err := url.Parse(c.Proxy.UpstreamURL); err == nil && u.Scheme == "http" && !isLoopback(u.Hostname()) {
		c.Warnings = append(c.Warnings, "upstream_url is http:// and not loopback: tokens travel in clear text")
	}
	for _, h := range c.Headers {
		if strings.EqualFold(h.Name, "anthropic-beta") && h.Mode == ModeSet {
			c.Warnings = append(c.Warnings, `the rule for anthropic-beta has mode "set", which drops the clients' own beta flags; Claude Code needs mode = "add"`)
		}
	}
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
