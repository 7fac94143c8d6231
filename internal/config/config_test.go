package config_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/basher83/anthropic-oauth-proxy/internal/config"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// load writes text into a file of its own and loads it.
func load(t *testing.T, text string) (config.Config, []string) {
	file := filepath.Join(t.TempDir(), "proxy.toml")
	assert.NilError(t, os.WriteFile(file, []byte(text), 0o600))
	c, err := config.Load(map[string]string{"config": file}, func(string) string { return "" })
	if err == nil {
		return c, nil
	}
	var problems config.Problems
	assert.Assert(t, errors.As(err, &problems))
	var lines []string
	for _, p := range problems {
		assert.Equal(t, p.Source, file)
		lines = append(lines, strings.TrimPrefix(p.String(), file+":"))
	}
	return c, lines
}

// Section 7: every key of the file.
func TestEveryKey(t *testing.T) {
	c, problems := load(t, `
[proxy]
listen_addr = "[::1]:9090"
upstream_url = "http://localhost:1/prefix/"
timeout_secs = 60
retries = 0
max_connections = 1
max_body_bytes = 1
max_buffered_bytes = 1
drain_timeout_secs = 0

[[headers]]
name = "X-One"
value = "1"

[[headers]]
name = "X-Two"
value = "2, 3"
mode = "add"
`)
	assert.Assert(t, is.Len(problems, 0))
	assert.DeepEqual(t, c.Proxy, config.Proxy{ListenAddr: "[::1]:9090", UpstreamURL: "http://localhost:1/prefix/", TimeoutSecs: 60,
		MaxConnections: 1, MaxBodyBytes: 1, MaxBufferedBytes: 1})
	assert.DeepEqual(t, c.Headers, []config.Header{{"X-One", "1", "set"}, {"X-Two", "2, 3", "add"}})
	assert.Assert(t, is.Len(c.Warnings, 0))
}

// Section 7: [[headers]] replaces the default rule, a file without any keeps it, headers = [] means none.
func TestHeaderRulesReplaceTheDefault(t *testing.T) {
	c, _ := load(t, "[proxy]\nretries = 1\n")
	assert.DeepEqual(t, c.Headers, config.Default().Headers)
	c, _ = load(t, "headers = []\n")
	assert.Assert(t, is.Len(c.Headers, 0))
	c, _ = load(t, `headers = [{name = "X-A", value = "b"}]`)
	assert.DeepEqual(t, c.Headers, []config.Header{{"X-A", "b", "set"}})
}

// Section 7: all problems at once, each with line and key, and what would be right.
func TestAllProblemsAtOnce(t *testing.T) {
	_, problems := load(t, `[proxy]
listen_addr = "8080"
upstream_url = "ftp://x"
timeout_secs = 0
retries = 6
max_connections = "many"
max_body_bytes = 1.5
max_buffered_bytes = -1
drain_timeout_secs = -1
timeout = 3

[[headers]]
name = "Authorization"
value = "Bearer SECRET"

[[headers]]
name = "bad name"
value = "line\nbreak SECRET"
mode = "append"
sticky = true

[[headers]]
mode = 3

[server]
port = 1
`)
	want := []string{
		`2: proxy.listen_addr: must be "host:port" with a port from 0 to 65535, such as "127.0.0.1:8080", not "8080"`,
		`3: proxy.upstream_url: must be an http or https URL with a host and perhaps a path, such as "https://api.anthropic.com"`,
		`4: proxy.timeout_secs: must be a whole number from 1 to 31536000, not 0`,
		`5: proxy.retries: must be a whole number from 0 to 5, not 6`,
		`6: proxy.max_connections: must be a whole number from 1 to 1073741824, not "many"`,
		`7: proxy.max_body_bytes: must be a whole number from 1 to 1099511627776, not 1.5`,
		`8: proxy.max_buffered_bytes: must be a whole number from 1 to 1099511627776, not -1`,
		`9: proxy.drain_timeout_secs: must be a whole number from 0 to 31536000, not -1`,
		`10: proxy.timeout: unknown key; [proxy] has listen_addr, upstream_url, timeout_secs, retries, max_connections, max_body_bytes, max_buffered_bytes, drain_timeout_secs`,
		`13: headers[0].name: no rule may name authorization: the client's credentials pass unchanged`,
		"17: headers[1].name: must be a header name: letters, digits and any of !#$%&'*+-.^_`|~ (RFC 9110 section 5.6.2)",
		`18: headers[1].value: must not contain control characters`,
		`19: headers[1].mode: must be "set" or "add", not "append"`,
		`20: headers[1].sticky: unknown key; a rule has name, value and mode`,
		`22: headers[2]: needs a name`,
		`22: headers[2]: needs a value`,
		`23: headers[2].mode: must be a string, not 3`,
		`25: server: unknown; a configuration has the sections [proxy] and [[headers]]`,
	}
	assert.DeepEqual(t, problems, want)
}

// Section 7: more wrong values, one at a time.
func TestWrongValues(t *testing.T) {
	for text, want := range map[string]string{
		`'' = 0`:                             `1: "": unknown`,
		"\"a\\nb\" = 0":                      `1: "a\nb": unknown`,
		`proxy = 3`:                          `1: proxy: must be a section, [proxy]`,
		`headers = "x"`:                      `1: headers: must be a list of rules: [[headers]] sections, or headers = [] for none`,
		`headers = [1]`:                      `1: headers: element 0 must be a table with name, value and mode, not 1`,
		`listen_addr = ":80"`:                `1: listen_addr: unknown; a configuration has the sections [proxy] and [[headers]]`,
		"[proxy]\nretries = [1]":             `2: proxy.retries: must be a whole number from 0 to 5, not an array`,
		"[proxy]\nlisten_addr = 80":          `2: proxy.listen_addr: must be "host:port" with a port from 0 to 65535, such as "127.0.0.1:8080", not 80`,
		"[proxy]\nretries = 1\nretries = 2":  `not valid TOML`,
		"[proxy]\n\nretries = ":              `3: not valid TOML: `,
		"[proxy]\nmax_body_bytes = 67108865": `2: proxy.max_body_bytes: max_buffered_bytes (67108864) must be at least max_body_bytes (67108865)`,
		"[proxy]\nmax_buffered_bytes = 5":    `2: proxy.max_buffered_bytes: max_buffered_bytes (5) must be at least max_body_bytes (10485760)`,
		"[proxy]\nupstream_url = \"https://user:SECRET@host\"":   `credentials do not belong in it`,
		"[proxy]\nupstream_url = \"https://host/?q=SECRET\"":     `without query and fragment`,
		"[proxy]\nupstream_url = \"https://host:99999\"":         `a port from 1 to 65535`,
		"[proxy]\nupstream_url = \"https://\"":                   `2: proxy.upstream_url: must be`,
		"[[headers]]\nname=\"X-A\"\nvalue=\" , \"\nmode=\"add\"": `3: headers[0].value: must not begin or end with white space`,
		"[[headers]]\nname=\"X-A\"\nvalue=\",\"\nmode=\"add\"":   `3: headers[0].value: must name at least one token with mode = "add"`,
		"[[headers]]\nname=\"\"\nvalue=\"x\"":                    `2: headers[0].name: must be a header name`,
	} {
		_, problems := load(t, text)
		assert.Equal(t, len(problems), 1, "%s: %q", text, problems)
		assert.Assert(t, is.Contains(problems[0], want))
		assert.Assert(t, !strings.Contains(problems[0], "SECRET"))
	}
	for _, name := range []string{"authorization", "X-Api-Key", "Host", "content-length", "Connection", "Keep-Alive", "Proxy-Authenticate",
		"Proxy-Authorization", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade"} { // row 1.6 and section 7
		_, problems := load(t, "[[headers]]\nname = '"+name+"'\nvalue = 'x'")
		assert.Equal(t, len(problems), 1)
		assert.Assert(t, is.Contains(problems[0], "2: headers[0].name: no rule may name "))
	}
}

// Section 7: what is left of the sidecar days only warns, once.
func TestTailscaleLeftovers(t *testing.T) {
	c, problems := load(t, "[proxy]\nretries = 1\n[tailscale]\nhostname = \"x\"\nauth_key = \"SECRET\"\nstate_dir = 3\n[tailscale.more]\nx = 1\n")
	assert.Assert(t, is.Len(problems, 0))
	assert.Assert(t, is.Len(c.Warnings, 1))
	assert.Assert(t, is.Contains(c.Warnings[0], ":3: the section [tailscale] is ignored and may be deleted"))
	c, problems = load(t, "tailscale.hostname = \"x\"\ntailscale.auth_key = \"SECRET\"\n")
	assert.Assert(t, is.Len(problems, 0))
	assert.Assert(t, is.Len(c.Warnings, 1))

	t.Chdir(t.TempDir())
	c, err := config.Load(nil, func(name string) string { return map[string]string{"TAILSCALE_SOCKET": "/x"}[name] })
	assert.NilError(t, err)
	assert.DeepEqual(t, c.Warnings, []string{"the environment variable TAILSCALE_SOCKET is ignored and may be deleted"})
}

// Section 7: what works but is probably not meant.
func TestWarnings(t *testing.T) {
	c, _ := load(t, "[proxy]\nupstream_url = \"http://10.0.0.1\"\n[[headers]]\nname = \"Anthropic-Beta\"\nvalue = \"oauth-2025-04-20\"\n")
	assert.Assert(t, is.Len(c.Warnings, 2))
	assert.Assert(t, is.Contains(c.Warnings[0], "clear text"))
	assert.Assert(t, is.Contains(c.Warnings[1], `mode = "add"`))
	for _, loopback := range []string{"http://127.0.0.1:1", "http://[::1]", "http://localhost", "https://10.0.0.1"} {
		c, _ := load(t, "[proxy]\nupstream_url = \""+loopback+"\"\n")
		assert.Assert(t, is.Len(c.Warnings, 0), loopback)
	}
}

// Section 7: flags > environment > file > defaults; problems of all of them come together.
func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	env := map[string]string{}
	getenv := func(name string) string { return env[name] }

	c, err := config.Load(nil, getenv)
	assert.NilError(t, err)
	assert.DeepEqual(t, c, config.Default())

	assert.NilError(t, os.WriteFile(config.FileName, []byte("[proxy]\nretries = 1\n"), 0o600))
	assert.NilError(t, os.WriteFile("env.toml", []byte("[proxy]\nretries = 2\nlisten_addr = \"127.0.0.1:1\"\n"), 0o600))
	assert.NilError(t, os.WriteFile("flag.toml", []byte("[proxy]\nretries = 3\n"), 0o600))
	c, err = config.Load(nil, getenv)
	assert.NilError(t, err)
	assert.Equal(t, c.Proxy.Retries, int64(1))
	assert.Equal(t, c.File, config.FileName)

	env["CONFIG_PATH"], env["LOG_LEVEL"] = "env.toml", "debug"
	c, err = config.Load(map[string]string{"listen": ":2"}, getenv)
	assert.NilError(t, err)
	assert.Equal(t, c.Proxy.Retries, int64(2))
	assert.Equal(t, c.Proxy.ListenAddr, ":2")
	assert.Equal(t, c.LogLevel, slog.LevelDebug)

	c, err = config.Load(map[string]string{"config": "flag.toml", "log-level": "error", "upstream": "http://localhost:9"}, getenv)
	assert.NilError(t, err)
	assert.Equal(t, c.Proxy.Retries, int64(3))
	assert.Equal(t, c.Proxy.UpstreamURL, "http://localhost:9")
	assert.Equal(t, c.LogLevel, slog.LevelError)

	env["LOG_LEVEL"] = "loud"
	_, err = config.Load(map[string]string{"config": "missing.toml", "listen": "x", "upstream": ""}, getenv)
	assert.Error(t, err, `missing.toml: cannot read the configuration file: no such file or directory
--listen: must be "host:port" with a port from 0 to 65535, such as "127.0.0.1:8080", not "x"
--upstream: must be an http or https URL with a host and perhaps a path, such as "https://api.anthropic.com"
LOG_LEVEL: must be debug, info, warn or error, not "loud"`)
}

// FuzzLoad: no file makes Load panic; what is refused names its line and key; what is accepted holds every limit, and
// printed by TOML it is read back as the same configuration.
func FuzzLoad(f *testing.F) {
	text, err := config.Default().TOML()
	assert.NilError(f, err)
	for _, seed := range []string{string(text), "headers = []", "[tailscale]\nx=1", "[proxy]\nretries = 9", "a.b = {c = [{d = 1}]}", "[[headers]]\nname='a'\nvalue=''"} {
		f.Add(seed)
	}
	file := filepath.Join(f.TempDir(), "fuzz.toml")
	getenv := func(string) string { return "" }
	f.Fuzz(func(t *testing.T, text string) {
		assert.NilError(t, os.WriteFile(file, []byte(text), 0o600))
		c, err := config.Load(map[string]string{"config": file}, getenv)
		if err != nil {
			var problems config.Problems
			assert.Assert(t, errors.As(err, &problems) && len(problems) > 0)
			for _, p := range problems {
				if strings.HasPrefix(p.Text, "not valid TOML") {
					continue
				}
				assert.Assert(t, p.Line > 0 && p.Key != "", "%s", p)
			}
			return
		}
		p := c.Proxy
		assert.Assert(t, p.TimeoutSecs > 0 && p.Retries >= 0 && p.Retries <= 5 && p.MaxConnections > 0 && p.MaxBodyBytes > 0 &&
			p.MaxBufferedBytes >= p.MaxBodyBytes && p.DrainTimeoutSecs >= 0 && p.ListenAddr != "" && p.UpstreamURL != "")
		printed, err := c.TOML()
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(file, printed, 0o600))
		again, err := config.Load(map[string]string{"config": file}, getenv)
		assert.NilError(t, err, "%s", printed)
		assert.DeepEqual(t, again.Proxy, c.Proxy)
		assert.Equal(t, len(again.Headers), len(c.Headers))
		for i := range c.Headers {
			assert.Equal(t, again.Headers[i], c.Headers[i])
		}
	})
}
