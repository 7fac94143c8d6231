package config_test

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/basher83/anthropic-oauth-proxy/internal/config"
	"github.com/basher83/anthropic-oauth-proxy/internal/header"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func noEnv(string) string { return "" }

// loadWith loads the configuration from flags and environment variables. There must be no problem.
func loadWith(t *testing.T, flags, env map[string]string) config.Config {
	t.Helper()
	c, err := config.Load(flags, func(name string) string { return env[name] })
	assert.NilError(t, err)
	return c
}

// load writes text to a file and loads it. It returns the problems without the file's name.
func load(t *testing.T, text string) (config.Config, []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "proxy.toml")
	assert.NilError(t, os.WriteFile(file, []byte(text), 0o600))
	c, err := config.Load(map[string]string{"config": file}, noEnv)
	if err == nil {
		return c, nil
	}
	var problems []string
	for line := range strings.Lines(err.Error() + "\n") {
		assert.Assert(t, strings.HasPrefix(line, file+":"), line)
		problems = append(problems, strings.TrimSuffix(strings.TrimPrefix(line, file+":"), "\n"))
	}
	return c, problems
}

// Section 7: [[headers]] replaces the default rule, a file without any keeps it, headers = [] means none.
func TestHeaderRulesReplaceTheDefault(t *testing.T) {
	for text, want := range map[string][]config.Header{
		"[proxy]\nretries = 1":                    {{"anthropic-beta", "oauth-2025-04-20", "add"}},
		"headers = []":                            {},
		`headers = [{name = "X-A", value = "b"}]`: {{"X-A", "b", "set"}},
	} {
		c, _ := load(t, text)
		assert.DeepEqual(t, c.Headers, want)
	}
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
	assert.DeepEqual(t, problems, []string{
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
		`20: headers[1].sticky: unknown key; a rule has name, value, mode`,
		`22: headers[2]: needs a name`,
		`22: headers[2]: needs a value`,
		`23: headers[2].mode: must be a string, not 3`,
		`25: server: unknown; a configuration has the sections [proxy] and [[headers]]`,
	})
}

// Section 7: each mistake is reported on its own line, with its place and without secrets.
func TestProblem(t *testing.T) {
	for text, want := range map[string]string{
		"[proxy":                                                       `1: not valid TOML: `,
		"[proxy]\n\nretries = ":                                        `3: not valid TOML: `,
		"[proxy]\n\nretries = 1\nretries = 2":                          `4: not valid TOML: `,
		"a = 1\n'' = 0":                                                `1: a: unknown; a configuration has the sections [proxy] and [[headers]]|2: "": unknown`,
		"\"a\\nb\" = 0":                                                `1: "a\nb": unknown`,
		"\"proxy.retries\" = 1":                                        `1: "proxy.retries": unknown`,
		"listen_addr = ':80'":                                          `1: listen_addr: unknown; a configuration has the sections [proxy] and [[headers]]`,
		"server.port.x = 1\n[server.more]\ny=1":                        `1: server: unknown`,
		"[Proxy]\nretries = 1":                                         `1: Proxy: unknown; a configuration has the sections [proxy] and [[headers]]`,
		"proxy = 3":                                                    `1: proxy: must be a section, [proxy]`,
		"proxy = {timeout_secs = 1,retries = 9}":                       `1: proxy.retries: must be a whole number from 0 to 5, not 9`,
		"a=1\nproxy.retries = 9":                                       `1: a: unknown|2: proxy.retries: must be a whole number from 0 to 5, not 9`,
		"[proxy]\nretries = [1]":                                       `2: proxy.retries: must be a whole number from 0 to 5, not an array`,
		"[proxy.retries]\nx = 1":                                       `1: proxy.retries: must be a whole number from 0 to 5, not a table`,
		"[proxy.more]\nx = 1":                                          `1: proxy.more: unknown key; [proxy] has `,
		"[proxy]\nlisten_addr = 80":                                    `2: proxy.listen_addr: must be a string, not 80`,
		"[proxy]\nlisten_addr = 'h:65536'":                             `2: proxy.listen_addr: must be "host:port" with a port from 0 to 65535`,
		"[proxy]\nlisten_addr = 'http://h:80'":                         `2: proxy.listen_addr: must be "host:port"`,
		"[proxy]\nmax_body_bytes = 67108865":                           `2: proxy.max_body_bytes: max_buffered_bytes (67108864) must be at least max_body_bytes (67108865)`,
		"[proxy]\nmax_body_bytes = 20\nmax_buffered_bytes = 19":        `3: proxy.max_buffered_bytes: max_buffered_bytes (19) must be`,
		"[proxy]\nupstream_url = 'api.anthropic.com'":                  `2: proxy.upstream_url: must be an http or https URL with a host`,
		"[proxy]\nupstream_url = 'https://user:SECRET@host'":           `2: proxy.upstream_url: must be an http or https URL with a host and perhaps a path, such as "https://api.anthropic.com"; credentials do not belong in it`,
		"[proxy]\nupstream_url = 'https://user:SECRET@host:x'":         `2: proxy.upstream_url: must be`,
		"[proxy]\nupstream_url = 'https://host/?q=SECRET'":             `2: proxy.upstream_url: must be an http or https URL with a host and perhaps a path, such as "https://api.anthropic.com", without query and fragment`,
		"[proxy]\nupstream_url = 'https://host/#'":                     `2: proxy.upstream_url: must be an http or https URL with a host and perhaps a path, such as "https://api.anthropic.com", without query and fragment`,
		"[proxy]\nupstream_url = 'https://host:99999'":                 `2: proxy.upstream_url: must be an http or https URL with a host and perhaps a path, such as "https://api.anthropic.com", and a port from 1 to 65535`,
		"headers = 'x'":                                                `1: headers: must be a list of rules: [[headers]] sections, or headers = [] for none`,
		"[headers]\nname = 'x'\nvalue = 'y'":                           `1: headers: must be a list of rules`,
		"headers = [3]":                                                `1: headers: element 0 must be a table with name, value and mode, not 3`,
		"\nheaders = [\n  {value = 'x'},\n {value = 1,\nname = 'te'}]": `3: headers[0]: needs a name|4: headers[1].value: must be a string, not 1|5: headers[1].name: no rule may name te: it is a hop-by-hop header`,
		"\nheaders = [{}]":                                             `2: headers[0]: needs a name|2: headers[0]: needs a value`,
		"[[headers]]\nname='x'\nvalue='y'\n[[headers]]\nvalue='y'\n[headers.name]\ny=1": `6: headers[1].name: must be a string, not a table`,
		"[[headers]]\nname=''\nvalue='x'":                                               `2: headers[0].name: must be a header name: `,
		"[[headers]]\nname='X'\nvalue=' y'":                                             `3: headers[0].value: must not begin or end with white space`,
		"[[headers]]\nname='X'\nvalue=' , '\nmode='add'":                                `3: headers[0].value: must not begin or end with white space`,
		"[[headers]]\nname='X'\nvalue=','\nmode='add'":                                  `3: headers[0].value: must have at least one token: mode "add" appends tokens`,
		"[[headers]]\nname='X'\nvalue=\"SECRET\\u0000\"":                                `3: headers[0].value: must not contain control characters`,
	} {
		_, problems := load(t, text)
		wants := strings.Split(want, "|")
		assert.Equal(t, len(problems), len(wants), "%s: %q", text, problems)
		for i, p := range problems {
			assert.Check(t, strings.HasPrefix(p, wants[i]), "%s:\n got %s\nwant %s", text, p, wants[i])
			assert.Check(t, !strings.Contains(p, "SECRET"), p)
		}
	}
}

// Section 7 and row 1.6: no rule may name these headers, in whatever spelling.
func TestReservedHeaders(t *testing.T) {
	for _, name := range append([]string{"authorization", "Authorization", "X-API-Key", "Host", "content-length", "TE"}, header.HopByHop...) {
		_, problems := load(t, "[[headers]]\nname = '"+name+"'\nvalue = 'x'")
		assert.Equal(t, len(problems), 1)
		assert.Assert(t, is.Contains(problems[0], "2: headers[0].name: no rule may name "+strings.ToLower(name)+": "))
	}
}

// Section 7: an upstream that is our own listener is refused, however it is written. No other upstream is.
func TestLoop(t *testing.T) {
	lan := "192.0.2.1" // nobody's
	addrs, err := net.InterfaceAddrs()
	assert.NilError(t, err)
	for _, a := range addrs {
		if prefix, ok := a.(*net.IPNet); ok && prefix.IP.To4() != nil {
			lan = prefix.IP.String() // loopback if there is no other address
		}
	}
	for _, tt := range []struct {
		listen, upstream string
		loop             bool
	}{
		{"127.0.0.1:9370", "http://localhost:9370", true},
		{"127.0.0.1:9370", "http://LOCALHOST.:9370/prefix", true},
		{"127.0.0.1:9370", "http://api.localhost:9370", true},
		{"127.0.0.1:9370", "https://127.0.0.1:9370", true},
		{"127.0.0.1:9370", "http://127.0.0.2:9370", true},
		{"127.0.0.1:9370", "http://[::1]:09370", true},
		{"127.0.0.1:9370", "http://[::ffff:127.0.0.1]:9370", true},
		{"127.0.0.1:9370", "http://0.0.0.0:9370", true},
		{"127.0.0.1:9370", "http://[::]:9370", true},
		{"localhost:9370", "http://127.0.0.1:9370", true},
		{"[::1]:9370", "http://localhost:9370", true},
		{":9370", "http://localhost:9370", true},
		{"0.0.0.0:9370", "http://[::1]:9370", true},
		{"[::]:9370", "http://" + lan + ":9370", true},
		{"192.0.2.1:9370", "http://192.0.2.1:9370", true},
		{"proxy.example:9370", "http://Proxy.Example:9370", true},
		{":80", "http://localhost", true},
		{":443", "https://localhost/", true},

		{":80", "https://localhost", false},
		{"127.0.0.1:9370", "http://localhost:9371", false},
		{"127.0.0.1:0", "http://localhost:9370", false},
		{"127.0.0.1:9370", "http://192.0.2.1:9370", false},
		{"127.0.0.1:9370", "http://localhost.example:9370", false},
		{"192.0.2.1:9370", "http://127.0.0.1:9370", false},
		{"192.0.2.1:9370", "http://192.0.2.2:9370", false},
		{":9370", "http://192.0.2.3:9370", false},
		{":9370", "http://gateway.example:9370", false},
		{"proxy.example:9370", "http://localhost:9370", false},
	} {
		_, problems := load(t, fmt.Sprintf("[proxy]\nlisten_addr = %q\nupstream_url = %q", tt.listen, tt.upstream))
		assert.Equal(t, len(problems), map[bool]int{true: 1}[tt.loop], "%+v %q", tt, problems)
		if tt.loop {
			assert.Check(t, strings.HasPrefix(problems[0], "3: proxy.upstream_url: leads back to this proxy, which listens on "+tt.listen), problems[0])
		}
	}
	_, err = config.Load(map[string]string{"listen": ":1", "upstream": "http://localhost:1"}, noEnv)
	assert.ErrorContains(t, err, "--upstream: leads back to this proxy, which listens on :1; ")
}

// Section 7: [tailscale], in any form, and TAILSCALE_SOCKET cause one warning and no error.
func TestTailscaleLeftovers(t *testing.T) {
	for _, text := range []string{
		"\n[tailscale]\nhostname = 'x'\nauth_key = 'SECRET'\nstate_dir = 3\n[proxy]\nretries = 1\n[tailscale.more]\nx = 1",
		"\n[tailscale]", "\n[tailscale.more]\n[tailscale.state]", "\ntailscale.hostname = 'x'\ntailscale.auth_key = 'SECRET'",
		"\ntailscale = {auth_key = 'SECRET'}", "\n[[tailscale]]", "\ntailscale = 3",
	} {
		c, problems := load(t, text)
		assert.Assert(t, is.Len(problems, 0))
		assert.Assert(t, is.Len(c.Warnings, 1))
		assert.Assert(t, strings.HasSuffix(c.Warnings[0], ":2: the section [tailscale] is ignored and may be deleted"), c.Warnings[0])
	}
	t.Chdir(t.TempDir())
	c := loadWith(t, nil, map[string]string{"TAILSCALE_SOCKET": "/x"})
	assert.DeepEqual(t, c.Warnings, []string{"the environment variable TAILSCALE_SOCKET is ignored and may be deleted"})
}

// Rows 1.7 and 1.9: without a mode, a rule for anthropic-beta adds and every other rule sets. The replaced service's files have
// no modes, and Claude Code's own flags must not be lost. An explicit set works, with a warning.
func TestModeOfARuleWithoutOne(t *testing.T) {
	for name, mode := range map[string]string{"anthropic-beta": "add", "Anthropic-Beta": "add", "ANTHROPIC-BETA": "add", "anthropic-betas": "set", "x-beta": "set"} {
		c, problems := load(t, "[[headers]]\nname = '"+name+"'\nvalue = 'oauth-2025-04-20'")
		assert.Assert(t, is.Len(problems, 0))
		assert.DeepEqual(t, c.Headers, []config.Header{{name, "oauth-2025-04-20", mode}})
		assert.Assert(t, is.Len(c.Warnings, 0))
	}
	for _, name := range []string{"anthropic-beta", "Anthropic-Beta"} {
		c, _ := load(t, "[[headers]]\nname = '"+name+"'\nvalue = 'oauth-2025-04-20'\nmode = 'set'")
		assert.DeepEqual(t, c.Headers, []config.Header{{name, "oauth-2025-04-20", "set"}})
		assert.Assert(t, is.Len(c.Warnings, 1))
		assert.Assert(t, is.Contains(c.Warnings[0], `mode = "add"`))
	}
	_, problems := load(t, "[[headers]]\nname = 'anthropic-beta'\nvalue = ''")
	assert.DeepEqual(t, problems, []string{`3: headers[0].value: must have at least one token: mode "add" appends tokens`})
}

// Section 7: a CA file or directory that crypto/x509 would skip silently gets a warning.
func TestCertificateWarnings(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	assert.NilError(t, os.WriteFile("ca.pem", append([]byte("a comment\n"), ca...), 0o600))
	assert.NilError(t, os.WriteFile("ca.der", server.Certificate().Raw, 0o600))
	for _, tt := range []struct{ file, dir, want string }{
		{"", "", ""},
		{"ca.pem", dir + ":" + dir, ""},
		{"ca.pme", "", "SSL_CERT_FILE cannot be read, so no CA in it is trusted: open ca.pme: no such file or directory"},
		{dir, "", "SSL_CERT_FILE cannot be read, so no CA in it is trusted: read " + dir + ": is a directory"},
		{"ca.der", "", "SSL_CERT_FILE must name a file of PEM certificates, and ca.der has none"},
		{"ca.pem", dir + ":/missing", "SSL_CERT_DIR cannot be read, so no CA in it is trusted: open /missing: no such file or directory"},
	} {
		c := loadWith(t, nil, map[string]string{"SSL_CERT_FILE": tt.file, "SSL_CERT_DIR": tt.dir})
		assert.Equal(t, strings.Join(c.Warnings, "\n"), tt.want)
	}
}

// Section 7: a timeout that cuts answers which do not stream gets a warning, and so does an http:// upstream, unless it is this
// machine.
func TestWarnings(t *testing.T) {
	for secs, warns := range map[int]bool{1: true, 60: true, 299: true, 300: false, 600: false, 3600: false} {
		c, problems := load(t, fmt.Sprintf("[proxy]\ntimeout_secs = %d", secs))
		assert.Assert(t, is.Len(problems, 0))
		assert.Equal(t, len(c.Warnings) == 1 && strings.Contains(c.Warnings[0], "may take ten minutes"), warns, "%d: %q", secs, c.Warnings)
	}
	for url, warns := range map[string]bool{
		"http://gateway.example": true, "HTTP://gateway.example": true, "http://192.168.1.2:8080": true, "http://localhost.example": true,
		"http://127.0.0.1.example": true, "http://[2001:db8::1]:80/path": true,
		"https://gateway.example": false, "http://localhost:80": false, "http://127.0.0.1:80": false, "http://127.1.2.3": false, "http://[::1]:80": false,
	} {
		c, problems := load(t, "[proxy]\nupstream_url = '"+url+"'")
		assert.Assert(t, is.Len(problems, 0))
		assert.Equal(t, len(c.Warnings) == 1 && strings.Contains(c.Warnings[0], "clear text"), warns, "%s: %q", url, c.Warnings)
	}
}

// Section 7: a variable that another service understood does not stop a rollout; the flag is strict.
func TestLogLevel(t *testing.T) {
	t.Chdir(t.TempDir())
	for value, want := range map[string]slog.Level{"": slog.LevelInfo, "debug": slog.LevelDebug, "INFO": slog.LevelInfo, "Warn": slog.LevelWarn, "error": slog.LevelError} {
		c := loadWith(t, nil, map[string]string{"LOG_LEVEL": value})
		assert.Equal(t, c.LogLevel, want)
		assert.Assert(t, is.Len(c.Warnings, 0))
	}
	for _, value := range []string{"trace", "off", "info,hyper=warn", "warning", " debug", "4"} {
		env := map[string]string{"LOG_LEVEL": value}
		c := loadWith(t, nil, env)
		assert.Equal(t, c.LogLevel, slog.LevelInfo)
		assert.DeepEqual(t, c.Warnings, []string{fmt.Sprintf("LOG_LEVEL must be debug, info, warn or error, not %q: the level is info", value)})
		c = loadWith(t, map[string]string{"log-level": "error"}, env)
		assert.Equal(t, c.LogLevel, slog.LevelError)
		assert.Assert(t, is.Len(c.Warnings, 0))
		_, err := config.Load(map[string]string{"log-level": value}, noEnv)
		assert.Error(t, err, fmt.Sprintf("--log-level: must be debug, info, warn or error, not %q", value))
	}
}

// Section 7: flags override the file, --config overrides CONFIG_PATH, and --log-level overrides LOG_LEVEL. All problems come together. The
// file in the working directory is read only if no other is named.
func TestPrecedence(t *testing.T) {
	t.Chdir(t.TempDir())
	c := loadWith(t, nil, nil)
	assert.Equal(t, c.Upstream.String(), c.Proxy.UpstreamURL)
	assert.Equal(t, c.File, "")
	assert.NilError(t, os.WriteFile(config.FileName, []byte("[proxy]\nretries = 1\n"), 0o600))
	assert.NilError(t, os.WriteFile("env.toml", []byte("[proxy]\nretries = 3\nlisten_addr = \"127.0.0.1:1\"\n"), 0o600))
	assert.NilError(t, os.WriteFile("flag.toml", []byte("\ufeff[proxy]\nretries = 4\n"), 0o600))
	c = loadWith(t, nil, nil)
	assert.Equal(t, c.Proxy.Retries, int64(1))
	assert.Equal(t, c.File, config.FileName)

	env := map[string]string{"CONFIG_PATH": "env.toml", "LOG_LEVEL": "debug"}
	c = loadWith(t, map[string]string{"listen": ":2"}, env)
	assert.Equal(t, c.Proxy.Retries, int64(3))
	assert.Equal(t, c.Proxy.ListenAddr, ":2")
	assert.Equal(t, c.LogLevel, slog.LevelDebug)

	c = loadWith(t, map[string]string{"config": "flag.toml", "log-level": "error", "upstream": "http://localhost:9"}, env)
	assert.Equal(t, c.Proxy.Retries, int64(4))
	assert.Equal(t, c.Upstream.String(), "http://localhost:9")
	assert.Equal(t, c.LogLevel, slog.LevelError)

	_, err := config.Load(map[string]string{"config": "missing.toml", "listen": "x", "upstream": "https://u:SECRET@h:x", "log-level": "loud"}, noEnv)
	assert.Error(t, err, `--config: cannot read the configuration file: open missing.toml: no such file or directory
--listen: must be "host:port" with a port from 0 to 65535, such as "127.0.0.1:8080", not "x"
--log-level: must be debug, info, warn or error, not "loud"
--upstream: must be an http or https URL with a host and perhaps a path, such as "https://api.anthropic.com"`)
	_, err = config.Load(nil, func(name string) string { return map[string]string{"CONFIG_PATH": "missing.toml"}[name] })
	assert.Error(t, err, "CONFIG_PATH: cannot read the configuration file: open missing.toml: no such file or directory")
}

// FuzzLoad: no file makes Load panic; what is refused names its line and key; what is accepted holds every limit, and
// printed by TOML it is read back as the same configuration.
func FuzzLoad(f *testing.F) {
	for _, seed := range []string{"headers = []", "[tailscale]\nx=1", "[proxy]\nretries = 9", "a.b = {c = [{d = 1}]}", "[[headers]]\nname='a'\nvalue=''",
		`headers = [{name = 'X', value = "a \"quoted\" 'value', with\ttab"}]` + "\n[proxy]\nlisten_addr = '[::1]:9'\nupstream_url = 'https://h:8/prefix/'\n" +
			"timeout_secs = 61\nretries = 5\nmax_connections = 7\nmax_body_bytes = 11\nmax_buffered_bytes = 12\ndrain_timeout_secs = 0",
		"[[headers]]\nname='a'\nvalue='b,c'\nmode='add'\n[headers.x]\ny=[[1],{z=1}]", "[proxy]\nlisten_addr=':1'\nupstream_url='http://[::]:1'"} {
		f.Add(seed)
	}
	file := filepath.Join(f.TempDir(), "fuzz.toml")
	problem := regexp.MustCompile(`^` + regexp.QuoteMeta(file) + `:[1-9]\d*: (not valid TOML|[^ ].*): .`)
	f.Fuzz(func(t *testing.T, text string) {
		assert.NilError(t, os.WriteFile(file, []byte(text), 0o600))
		c, err := config.Load(map[string]string{"config": file}, noEnv)
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				assert.Assert(t, problem.MatchString(line), "%q", line)
			}
			return
		}
		p := c.Proxy
		assert.Assert(t, p.TimeoutSecs > 0 && p.Retries >= 0 && p.Retries <= 5 && p.MaxConnections > 0 && p.MaxBodyBytes > 0 &&
			p.MaxBufferedBytes >= p.MaxBodyBytes && p.DrainTimeoutSecs >= 0 && p.ListenAddr != "" && c.Upstream.Host != "")
		printed, err := c.TOML()
		assert.NilError(t, err)
		assert.NilError(t, os.WriteFile(file, printed, 0o600))
		again, err := config.Load(map[string]string{"config": file}, noEnv)
		assert.NilError(t, err, "%s", printed)
		assert.DeepEqual(t, again.Proxy, c.Proxy)
		assert.DeepEqual(t, again.Headers, c.Headers)
	})
}
