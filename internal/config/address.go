package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/basher83/anthropic-oauth-proxy/internal/target"
)

func checkListenAddr(s string) string {
	host, port, err := net.SplitHostPort(s)
	if _, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil || strings.ContainsAny(host, " /@?#") {
		return fmt.Sprintf(`must be "host:port" with a port from 0 to 65535, such as "127.0.0.1:8080", not %q`, s)
	}
	return ""
}

// setUpstream parses upstream_url. Its messages do not repeat the value, which may contain a password.
func (c *Config) setUpstream(s string) string {
	const right = `must be an http or https URL with a host and perhaps a path, such as "https://api.anthropic.com"`
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Opaque != "":
		return right
	case u.User != nil:
		return right + "; credentials do not belong in it: each client sends its own"
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return right + ", without query and fragment"
	}
	if n, err := strconv.ParseUint(target.Port(u), 10, 16); err != nil || n == 0 {
		return right + ", and a port from 1 to 65535"
	}
	c.Upstream = u
	return ""
}

// isLoop reports whether the upstream is our own listener. Each request would then wait for itself until no slot is left.
// It compares names but does not resolve them.
func isLoop(listenAddr string, upstream *url.URL) bool {
	listenHost, listenPort, _ := net.SplitHostPort(listenAddr)
	listen, up := address(listenHost), address(upstream.Hostname())
	own, _ := net.InterfaceAddrs()
	switch {
	case strings.TrimLeft(listenPort, "0") != strings.TrimLeft(target.Port(upstream), "0"):
		return false
	case !up.IsValid() || !listen.IsValid():
		return strings.EqualFold(listenHost, upstream.Hostname())
	case listen.IsUnspecified() && slices.ContainsFunc(own, func(a net.Addr) bool { return strings.HasPrefix(a.String(), up.String()+"/") }):
		return true
	}
	return listen == up || isHere(listen) && isHere(up)
}

// isHere reports whether a connection to addr stays on this machine.
func isHere(addr netip.Addr) bool { return addr.IsLoopback() || addr.IsUnspecified() }

// address returns the address of a host, or the zero Addr for a name.
func address(host string) netip.Addr {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	switch {
	case host == "": // as in ":8080"
		return netip.IPv6Unspecified()
	case host == "localhost" || strings.HasSuffix(host, ".localhost"): // RFC 6761 section 6.3
		return netip.IPv6Loopback()
	}
	addr, _ := netip.ParseAddr(host)
	return addr.Unmap().WithZone("")
}
