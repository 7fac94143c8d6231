// Package config reads flags, environment and an optional TOML file. It returns a Config, or an error that lists every
// problem. The fields of Proxy and Header document the keys of the file (contract section 7).
//
// A key is written in two places: its field, and its line in define or readRules with the default and the check.
package config

import (
	"log/slog"
	"net/url"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// FileName is read from the working directory if it exists and no other file is named.
const FileName = "anthropic-oauth-proxy.toml"

// Config is the effective configuration.
type Config struct {
	Proxy   Proxy    `toml:"proxy"`
	Headers []Header `toml:"headers"`

	Upstream *url.URL   `toml:"-"` // Proxy.UpstreamURL, parsed
	LogLevel slog.Level `toml:"-"` // flag --log-level or LOG_LEVEL; not in the file
	File     string     `toml:"-"` // "" if there was none
	Warnings []string   `toml:"-"` // settings that work but are probably a mistake
}

// Proxy is the [proxy] section.
type Proxy struct {
	// ListenAddr is the address to listen on, host:port.
	ListenAddr string `toml:"listen_addr"`
	// UpstreamURL is where requests go: http or https, a host, and perhaps a path prefix. It cannot be ListenAddr.
	UpstreamURL string `toml:"upstream_url"`
	// TimeoutSecs is a limit in seconds: for an attempt's wait for the response headers, for the upstream's silence
	// within a response, for a client that reads no byte of its answer, and (if less than 30) for a client that sends
	// no byte of its body. A whole response has no limit. 600 is the API's and the official SDKs' own limit.
	TimeoutSecs int64 `toml:"timeout_secs"`
	// Retries is how often an attempt that timed out is repeated, 0 to 5. The upstream may have run and billed it.
	Retries int64 `toml:"retries"`
	// MaxConnections is how many requests are proxied at once; more wait in order.
	MaxConnections int64 `toml:"max_connections"`
	// MaxBodyBytes is the largest request body, inclusive. 32 MiB is the API's own limit for messages.
	MaxBodyBytes int64 `toml:"max_body_bytes"`
	// MaxBufferedBytes limits the memory for all request bodies together. A body that does not fit waits. It must be at
	// least MaxBodyBytes.
	MaxBufferedBytes int64 `toml:"max_buffered_bytes"`
	// DrainTimeoutSecs is how long, in seconds, running requests may continue after SIGTERM; 0 aborts them at once.
	DrainTimeoutSecs int64 `toml:"drain_timeout_secs"`
}

// Header is one [[headers]] rule. Rules in a file replace the built-in rule; a file without rules keeps it.
type Header struct {
	Name  string `toml:"name"`
	Value string `toml:"value"`
	// Mode "set" replaces the client's header. Mode "add" appends those tokens of Value, a comma-separated list, that the
	// client did not send. The default is "add" for anthropic-beta and "set" for every other header.
	Mode string `toml:"mode"`
}

// The modes of a Header.
const (
	ModeSet = "set"
	ModeAdd = "add"
)

func (h Header) isBeta() bool { return strings.EqualFold(h.Name, "anthropic-beta") }

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

// Upper limits: larger than anybody needs, and small enough for the types that the values are converted to.
const (
	maxSecs  = 365 * 24 * 3600
	maxBytes = 1 << 40
	maxCount = 1 << 30
)

// TOML returns the configuration as a file that Load would read back.
func (c Config) TOML() ([]byte, error) { return toml.Marshal(c) }
