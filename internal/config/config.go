// Package config turns flags, environment and an optional TOML file into a Config, or into a list of everything that is
// wrong with them. The fields of Proxy and Header are the manual of the file; contract section 7 is their source.
//
// A key stands in two places: its field, and its line in define (or in readRules), which has its default and its check.
package config

import (
	"log/slog"
	"net/url"

	"github.com/pelletier/go-toml/v2"
)

// FileName is the file that is read from the working directory if it exists and none is named.
const FileName = "anthropic-oauth-proxy.toml"

// Config is the effective configuration.
type Config struct {
	Proxy   Proxy    `toml:"proxy"`
	Headers []Header `toml:"headers"`

	Upstream *url.URL   `toml:"-"` // Proxy.UpstreamURL, parsed
	LogLevel slog.Level `toml:"-"` // flag --log-level or LOG_LEVEL; not in the file
	File     string     `toml:"-"` // the file it was read from, or "" for the built-in defaults
	Warnings []string   `toml:"-"` // what works but should be changed
}

// Proxy is the [proxy] section.
type Proxy struct {
	// ListenAddr is the address to listen on, host:port.
	ListenAddr string `toml:"listen_addr"`
	// UpstreamURL is where requests go: http or https, a host, and perhaps a path prefix. It cannot be ListenAddr.
	UpstreamURL string `toml:"upstream_url"`
	// TimeoutSecs limits, in seconds, one attempt's wait for the response headers, the upstream's silence on a response
	// that has begun, and (if it is less than 30) the client's silence while it sends its body. Nothing limits a whole
	// response. 600 is the API's and the official SDKs' own limit.
	TimeoutSecs int64 `toml:"timeout_secs"`
	// Retries is how many attempts may follow one that timed out, 0 to 5. The upstream may have run the first one, and
	// billed it.
	Retries int64 `toml:"retries"`
	// MaxConnections is how many requests are proxied at once; more wait in order.
	MaxConnections int64 `toml:"max_connections"`
	// MaxBodyBytes is the largest request body, inclusive. 32 MiB is the API's own limit for messages.
	MaxBodyBytes int64 `toml:"max_body_bytes"`
	// MaxBufferedBytes limits all request bodies together; a request whose body does not fit waits. At least
	// MaxBodyBytes.
	MaxBufferedBytes int64 `toml:"max_buffered_bytes"`
	// DrainTimeoutSecs is how long, in seconds, running requests may go on after SIGTERM; 0 aborts them at once.
	DrainTimeoutSecs int64 `toml:"drain_timeout_secs"`
}

// Header is one [[headers]] rule. Rules in a file replace the default rule; a file without any keeps it.
type Header struct {
	Name  string `toml:"name"`
	Value string `toml:"value"`
	// Mode is "set", which replaces the client's header, or "add", which takes Value for a comma-separated list and
	// appends what the client did not send.
	Mode string `toml:"mode"`
}

// The modes of a Header.
const (
	ModeSet = "set"
	ModeAdd = "add"
)

// define sets the defaults and returns the keys of [proxy].
func (c *Config) define() []key {
	c.Headers = []Header{{Name: "anthropic-beta", Value: "oauth-2025-04-20", Mode: ModeAdd}}
	p := &c.Proxy
	const upstream = "https://api.anthropic.com"
	c.setUpstream(upstream)
	return []key{
		text("listen_addr", &p.ListenAddr, "127.0.0.1:8080", checkListenAddr),
		text("upstream_url", &p.UpstreamURL, upstream, c.setUpstream),
		number("timeout_secs", &p.TimeoutSecs, 600, 1, maxSecs),
		number("retries", &p.Retries, 2, 0, 5),
		number("max_connections", &p.MaxConnections, 1000, 1, maxCount),
		number("max_body_bytes", &p.MaxBodyBytes, 32<<20, 1, maxBytes),
		number("max_buffered_bytes", &p.MaxBufferedBytes, 64<<20, 1, maxBytes),
		number("drain_timeout_secs", &p.DrainTimeoutSecs, 30, 0, maxSecs),
	}
}

// Upper limits, far beyond sense but within the types that the values become.
const (
	maxSecs  = 365 * 24 * 3600
	maxBytes = 1 << 40
	maxCount = 1 << 30
)

// TOML returns the configuration as a file that Load would read back.
func (c Config) TOML() ([]byte, error) { return toml.Marshal(c) }
