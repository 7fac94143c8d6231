package config

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
)

// Load returns the effective configuration. The file is the one that --config names, else CONFIG_PATH, else FileName. --listen and
// --upstream override it, and --log-level overrides LOG_LEVEL. flags holds those that were given, by name ("config", "listen", "upstream",
// "log-level"). Its error has a line for each problem: "file:line: key: what would be right".
func Load(flags map[string]string, getenv func(string) string) (Config, error) {
	var c Config
	r := reader{Config: &c, keys: c.define()}
	if name, ok := flags["config"]; ok {
		r.open("--config", name)
	} else if name := getenv("CONFIG_PATH"); name != "" {
		r.open("CONFIG_PATH", name)
	} else if _, err := os.Stat(FileName); !errors.Is(err, fs.ErrNotExist) {
		r.open("working directory", FileName)
	}
	if getenv("TAILSCALE_SOCKET") != "" {
		text := "the environment variable TAILSCALE_SOCKET is ignored and may be deleted"
		c.Warnings = []string{strings.Join(append(c.Warnings, text), "; ")} // one warning for the section [tailscale] and this variable
	}
	if addr, ok := flags["listen"]; ok {
		r.reject("--listen", checkListenAddr(addr))
		c.Proxy.ListenAddr = addr
	}
	url, given := flags["upstream"]
	if given {
		r.reject("--upstream", c.setUpstream(url))
		c.Proxy.UpstreamURL = url
	}
	if isLoop(c.Proxy.ListenAddr, c.Upstream) {
		const text = `leads back to this proxy, which listens on %s; it must be another address or port, such as "https://api.anthropic.com"`
		if given {
			r.reject("--upstream", fmt.Sprintf(text, c.Proxy.ListenAddr))
		} else {
			r.report("proxy.upstream_url", fmt.Sprintf(text, c.Proxy.ListenAddr))
		}
	}
	if level, ok := flags["log-level"]; ok {
		r.reject("--log-level", c.setLogLevel(level))
	} else if wrong := c.setLogLevel(cmp.Or(getenv("LOG_LEVEL"), "info")); wrong != "" { // a variable of another service must not stop a rollout
		c.Warnings = append(c.Warnings, "LOG_LEVEL "+wrong+": the level is info")
	}
	if err := r.err(); err != nil {
		return Config{}, err
	}
	c.warn(getenv)
	return c, nil
}

// open reads the file; by is the flag or variable that named it.
func (r *reader) open(by, name string) {
	r.File = name
	data, err := os.ReadFile(name)
	if err != nil {
		r.reject(by, "cannot read the configuration file: "+err.Error())
		return
	}
	r.readFile(bytes.TrimPrefix(data, []byte("\ufeff")))
}

func (c *Config) setLogLevel(s string) string {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[strings.ToLower(s)]
	if !ok {
		return fmt.Sprintf("must be debug, info, warn or error, not %q", s)
	}
	c.LogLevel = level
	return ""
}

// warn adds a warning for each setting that works but is probably a mistake.
func (c *Config) warn(getenv func(string) string) {
	add := func(format string, args ...any) { c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...)) }
	if c.Upstream.Scheme == "http" && !isHere(address(c.Upstream.Hostname())) {
		add("upstream_url is http:// and not loopback: tokens travel in clear text")
	}
	if secs := c.Proxy.TimeoutSecs; secs < 300 {
		add("timeout_secs is %d, but an answer that does not stream may take ten minutes: set 600, the API's own limit", secs)
	}
	for _, h := range c.Headers {
		if h.isBeta() && h.Mode == ModeSet {
			add(`the rule for anthropic-beta has mode "set", which drops the clients' own beta flags; Claude Code needs mode = "add"`)
		}
	}
	if file := getenv("SSL_CERT_FILE"); file != "" {
		if data, err := os.ReadFile(file); err != nil {
			add("SSL_CERT_FILE cannot be read, so no CA in it is trusted: %v", err)
		} else if !x509.NewCertPool().AppendCertsFromPEM(data) {
			add("SSL_CERT_FILE must name a file of PEM certificates, and %s has none", file)
		}
	}
	for dir := range strings.SplitSeq(getenv("SSL_CERT_DIR"), ":") {
		if _, err := os.ReadDir(dir); dir != "" && err != nil {
			add("SSL_CERT_DIR cannot be read, so no CA in it is trusted: %v", err)
		}
	}
}
