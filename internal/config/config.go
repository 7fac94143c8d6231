// Package config turns flags, environment and an optional TOML file into a Config, or into a list of everything that is
// wrong with them. The fields of Proxy and Header are the manual of the file; contract section 7 is their source.
package config

import (
	"log/slog"

	"github.com/pelletier/go-toml/v2"
)

// FileName is the file that is read from the working directory if it exists and none is named.
const FileName = "anthropic-oauth-proxy.toml"

// Config is the effective configuration.
type Config struct {
	Proxy   Proxy    `toml:"proxy"`
	Headers []Header `toml:"headers"`

	LogLevel slog.Level `toml:"-"` // flag --log-level or LOG_LEVEL; not in the file
	File     string     `toml:"-"` // the file it was read from, or "" for the built-in defaults
	Warnings []string   `toml:"-"` // what works but should be changed
}

// Proxy is the [proxy] section.
type Proxy struct {
	// ListenAddr is the address to listen on, host:port.
	ListenAddr string `toml:"listen_addr"`
	// UpstreamURL is where requests go: http or https, a host, and perhaps a path prefix.
	UpstreamURL string `toml:"upstream_url"`
	// TimeoutSecs limits, in seconds, one attempt's wait for the response headers, the upstream's silence on a response
	// that has begun, and the client's silence while it sends its body. Nothing limits a whole response. 600 is the
	// API's and the official SDKs' own limit.
	TimeoutSecs int64 `toml:"timeout_secs"`
	// Retries is how many attempts may follow one that timed out, 0 to 5. The upstream may have run the first one, and
	// billed it.
	Retries int64 `toml:"retries"`
	// MaxConnections is how many requests are proxied at once; more wait in order.
	MaxConnections int64 `toml:"max_connections"`
	// MaxBodyBytes is the largest request body, inclusive.
	MaxBodyBytes int64 `toml:"max_body_bytes"`
	// MaxBufferedBytes limits all request bodies together; a request whose body does not fit waits.
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

// Default returns the configuration that needs no file.
func Default() Config {
	return Config{
		Proxy: Proxy{
			ListenAddr:       "127.0.0.1:8080",
			UpstreamURL:      "https://api.anthropic.com",
			TimeoutSecs:      600,
			Retries:          2,
			MaxConnections:   1000,
			MaxBodyBytes:     10 << 20,
			MaxBufferedBytes: 64 << 20,
			DrainTimeoutSecs: 30,
		},
		Headers: []Header{{Name: "anthropic-beta", Value: "oauth-2025-04-20", Mode: ModeAdd}},
	}
}

// TOML returns the configuration as a file that Load would read back.
func (c Config) TOML() ([]byte, error) {
	if c.Headers == nil {
		c.Headers = []Header{}
	}
	return toml.Marshal(c)
}
