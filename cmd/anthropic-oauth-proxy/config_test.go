package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Contract section 7: without flags, environment and file the built-in defaults are the configuration. This is the
// contract's own example file, but for the quotes.
func TestDefaults(t *testing.T) {
	t.Chdir(t.TempDir())
	assert.Equal(t, call(t, nil, "--check"), outcome{0, "configuration ok: built-in defaults\n", ""})
	o := call(t, nil, "--print-config")
	assert.Equal(t, o.code, 0)
	assert.Equal(t, o.stderr, "")
	assert.Equal(t, strings.ReplaceAll(o.stdout, "'", `"`), `[proxy]
listen_addr = "127.0.0.1:8080"
upstream_url = "https://api.anthropic.com"
timeout_secs = 600
retries = 2
max_connections = 1000
max_body_bytes = 10485760
max_buffered_bytes = 67108864
drain_timeout_secs = 30

[[headers]]
name = "anthropic-beta"
value = "oauth-2025-04-20"
mode = "add"
`)
}

// Contract section 7: what --print-config prints is a file that means the same, every key of it taken from the file.
func TestPrintConfigRoundTrip(t *testing.T) {
	for name, lines := range map[string][]string{
		"every key": {`[proxy]`, `listen_addr = "[::1]:9"`, `upstream_url = "https://gateway.example:8443/prefix/"`, `timeout_secs = 61`, `retries = 5`,
			`max_connections = 7`, `max_body_bytes = 11`, `max_buffered_bytes = 12`, `drain_timeout_secs = 0`,
			`[[headers]]`, `name = "X-One"`, `value = "a \"quoted\" 'value', with\ttab"`, `[[headers]]`, `name = "x-two"`, `value = ""`, `mode = "set"`},
		"no rules":     {`headers = []`},
		"inline rules": {`headers = [ {name = "a", value = "b", mode = "add"}, {name = "c", value = "d"} ]`},
		"dotted keys":  {`proxy.retries = 0`, `proxy.timeout_secs = 1`},
	} {
		t.Run(name, func(t *testing.T) {
			first := call(t, nil, "--print-config", "--config", writeConfig(t, lines...))
			assert.Equal(t, first.code, 0, first.stderr)
			second := call(t, nil, "--print-config", "--config", writeConfig(t, first.stdout))
			assert.Equal(t, second.stdout, first.stdout)
			for _, line := range lines {
				key, value, _ := strings.Cut(strings.TrimPrefix(line, "proxy."), " = ")
				if strings.HasSuffix(key, "_secs") || strings.HasPrefix(key, "max_") || key == "retries" {
					assert.Check(t, strings.Contains(first.stdout, key+" = "+value+"\n"), "%s is not in %s", line, first.stdout)
				}
			}
		})
	}
	o := call(t, nil, "--print-config", "--config", writeConfig(t, `headers = []`))
	assert.Check(t, strings.Contains(o.stdout, "headers = []\n"), "headers = [] means none, and not the default rule: %s", o.stdout)
	o = call(t, nil, "--print-config", "--config", writeConfig(t, `[proxy]`, `retries = 1`))
	assert.Check(t, strings.Contains(o.stdout, "oauth-2025-04-20"), "a file without rules keeps the default rule: %s", o.stdout)
	o = call(t, nil, "--print-config", "--config", writeConfig(t, `[[headers]]`, `name = "x"`, `value = "y"`))
	assert.Check(t, !strings.Contains(o.stdout, "oauth-2025-04-20"), "rules in a file replace the default rule: %s", o.stdout)
	assert.Check(t, strings.Contains(strings.ReplaceAll(o.stdout, "'", `"`), "name = \"x\"\nvalue = \"y\"\nmode = \"set\"\n"), "set is the default mode: %s", o.stdout)
}

// Contract section 7: flags win over the environment, the environment over the file, the file over the defaults; and
// ./anthropic-oauth-proxy.toml is read only if no other file is named.
func TestPrecedence(t *testing.T) {
	t.Chdir(t.TempDir())
	write := func(name, retries string) string {
		assert.NilError(t, os.WriteFile(name, []byte("[proxy]\nlisten_addr = \"127.0.0.1:1\"\nretries = "+retries+"\n"), 0o600))
		return name
	}
	fromEnv, fromFlag := write("env.toml", "3"), write("flag.toml", "4")
	env := map[string]string{"CONFIG_PATH": fromEnv}
	for _, tt := range []struct {
		name  string
		local bool
		env   map[string]string
		args  []string
		want  string
	}{
		{"defaults", false, nil, nil, "retries = 2"},
		{"the file in the working directory", true, nil, nil, "retries = 1"},
		{"CONFIG_PATH over the working directory", true, env, nil, "retries = 3"},
		{"--config over CONFIG_PATH", true, env, []string{"--config", fromFlag}, "retries = 4"},
		{"file over defaults", true, nil, nil, "listen_addr = '127.0.0.1:1'"},
		{"--listen over the file", true, nil, []string{"--listen", "127.0.0.1:2"}, "listen_addr = '127.0.0.1:2'"},
		{"--upstream over the defaults", true, nil, []string{"--upstream", "https://gateway.example"}, "upstream_url = 'https://gateway.example'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			os.Remove("anthropic-oauth-proxy.toml")
			if tt.local {
				write("anthropic-oauth-proxy.toml", "1")
			}
			o := call(t, tt.env, append(tt.args, "--print-config")...)
			assert.Equal(t, o.code, 0, o.stderr)
			assert.Check(t, strings.Contains(o.stdout, tt.want+"\n"), "%s is not in %s", tt.want, o.stdout)
		})
	}
	o := call(t, env, "--check", "--config", fromFlag)
	assert.Equal(t, o.stdout, "configuration ok: flag.toml\n", "--check names the file it read")
}

// Contract section 7: a file that is named but cannot be read is an error, whoever names it.
func TestNamedFileIsMissing(t *testing.T) {
	t.Chdir(t.TempDir())
	missing := filepath.Join(t.TempDir(), "missing.toml")
	want := outcome{2, "", missing + ": cannot read the configuration file: no such file or directory\n"}
	assert.Equal(t, call(t, nil, "--config", missing), want)
	assert.Equal(t, call(t, map[string]string{"CONFIG_PATH": missing}), want)
	assert.NilError(t, os.Mkdir("anthropic-oauth-proxy.toml", 0o700))
	assert.Equal(t, call(t, nil, "--check"), outcome{2, "", "anthropic-oauth-proxy.toml: cannot read the configuration file: is a directory\n"})
}

// Contract section 7: everything that is wrong comes at once, a line each, with file, line, key and what would be right;
// the exit code is 2, and nothing was listening.
func TestAllProblemsAtOnce(t *testing.T) {
	o := check(t,
		`colour = "blue"`,
		`[proxy]`,
		`listen_addr = "localhost"`,
		`upstream_url = "ftp://example.com"`,
		`timeout_secs = 0`,
		`retries = 6`,
		`max_connections = "many"`,
		`max_body_bytes = 1.5`,
		`max_buffered_bytes = -1`,
		`drain_timeout_secs = -1`,
		`retires = 3`,
		`[[headers]]`,
		`name = "authorization"`,
		`value = "x"`,
		`mode = "append"`,
		`[[headers]]`,
		`name = "two words"`,
		`value = "line\nbreak"`,
		`vlaue = "x"`,
		`[[headers]]`,
		`name = "x-lonely"`,
		`[metrics]`,
		`port = 9090`,
	)
	assert.Equal(t, o.code, 2)
	assert.Equal(t, o.stdout, "")
	want := []string{
		`FILE:1: colour: unknown`,
		`FILE:3: proxy.listen_addr: must be "host:port"`,
		`FILE:4: proxy.upstream_url: must be an http or https URL`,
		`FILE:5: proxy.timeout_secs: must be a whole number from 1 `,
		`FILE:6: proxy.retries: must be a whole number from 0 to 5, not 6`,
		`FILE:7: proxy.max_connections: must be a whole number from 1 to `,
		`FILE:8: proxy.max_body_bytes: must be a whole number from 1 `,
		`FILE:9: proxy.max_buffered_bytes: must be a whole number from 1 `,
		`FILE:10: proxy.drain_timeout_secs: must be a whole number from 0 `,
		`FILE:11: proxy.retires: unknown key; [proxy] has listen_addr, `,
		`FILE:13: headers[0].name: no rule may name authorization: `,
		`FILE:15: headers[0].mode: must be "set" or "add", not "append"`,
		`FILE:17: headers[1].name: must be a header name: `,
		`FILE:18: headers[1].value: must not contain control characters`,
		`FILE:19: headers[1].vlaue: unknown key; a rule has name, value and mode`,
		`FILE:20: headers[2]: needs a value`,
		`FILE:22: metrics: unknown; a configuration has the sections [proxy] and [[headers]]`,
	}
	got := o.lines()
	assert.Equal(t, len(got), len(want), o.stderr)
	for i, line := range got {
		assert.Check(t, strings.HasPrefix(line, want[i]), "got:  %s\nwant: %s", line, want[i])
	}
}

// Contract section 7: single mistakes, each with one line that says where it is and what would be right.
func TestProblem(t *testing.T) {
	for _, tt := range []struct {
		file, want string
	}{
		{"[proxy", `FILE:1: not valid TOML: `},
		{"[proxy]\n\nretries = 1\nretries = 2", `FILE:4: not valid TOML: `},
		{"proxy = 3", `FILE:1: proxy: must be a section, [proxy]`},
		{"[proxy]\nmax_body_bytes = 100_000_000", `FILE:2: proxy.max_body_bytes: max_buffered_bytes (67108864) must be at least max_body_bytes (100000000)`},
		{"[proxy]\nmax_body_bytes = 20\nmax_buffered_bytes = 19", `FILE:3: proxy.max_buffered_bytes: max_buffered_bytes (19) must be at least max_body_bytes (20)`},
		{"[proxy]\nlisten_addr = 8080", `FILE:2: proxy.listen_addr: must be "host:port" with a port from 0 to 65535, such as "127.0.0.1:8080", not 8080`},
		{"[proxy]\nlisten_addr = \"127.0.0.1:65536\"", `FILE:2: proxy.listen_addr: must be "host:port" with a port from 0 to 65535`},
		{"[proxy]\nlisten_addr = \"http://127.0.0.1:80\"", `FILE:2: proxy.listen_addr: must be "host:port"`},
		{"[proxy]\nupstream_url = \"api.anthropic.com\"", `FILE:2: proxy.upstream_url: must be an http or https URL with a host`},
		{"[proxy]\nupstream_url = \"https://\"", `FILE:2: proxy.upstream_url: must be an http or https URL with a host`},
		{"[proxy]\nupstream_url = \"https://a.example/?x\"", `FILE:2: proxy.upstream_url: must be an http or https URL with a host`},
		{"[proxy]\nupstream_url = \"https://a.example:0\"", `FILE:2: proxy.upstream_url: must be an http or https URL with a host`},
		{"[proxy]\ntimeout_secs = \"60s\"", `FILE:2: proxy.timeout_secs: must be a whole number from 1 to 31536000, not "60s"`},
		{"[proxy.retries]\nx = 1", `FILE:1: proxy.retries: must be a whole number from 0 to 5, not a table`},
		{"[proxy.more]\nx = 1", `FILE:1: proxy.more: unknown key; [proxy] has `},
		{"[Proxy]\nretries = 1", `FILE:1: Proxy: unknown; a configuration has the sections [proxy] and [[headers]]`},
		{"headers = \"x\"", `FILE:1: headers: must be a list of rules: [[headers]] sections, or headers = [] for none`},
		{"[headers]\nname = \"x\"\nvalue = \"y\"", `FILE:1: headers: must be a list of rules: [[headers]] sections, or headers = [] for none`},
		{"headers = [3]", `FILE:1: headers: element 0 must be a table with name, value and mode, not 3`},
		{"\nheaders = [\n  {value = \"x\"},\n]", `FILE:3: headers[0]: needs a name`},
		{"\nheaders = [{}]", "FILE:2: headers[0]: needs a name\nFILE:2: headers[0]: needs a value"},
		{"[[headers]]\nname = 1\nvalue = \"x\"", `FILE:2: headers[0].name: must be a string, not 1`},
		{"[[headers]]\nname = \"x\"\nvalue = \" y\"", `FILE:3: headers[0].value: must not begin or end with white space`},
		{"[[headers]]\nname = \"x\"\nvalue = \" , \"\nmode = \"add\"", `FILE:3: headers[0].value: must`},
		{"[[headers]]\nname = \"\"\nvalue = \"x\"", `FILE:2: headers[0].name: must be a header name: `},
		{"\"proxy.retries\" = 1", `FILE:1: "proxy.retries": unknown`},
	} {
		t.Run(tt.file, func(t *testing.T) {
			o := check(t, tt.file)
			assert.Equal(t, o.code, 2)
			want := strings.Split(tt.want, "\n")
			got := o.lines()
			assert.Equal(t, len(got), len(want), "one line per problem: %s", o.stderr)
			for i := range got {
				assert.Check(t, strings.HasPrefix(got[i], want[i]), "got:  %s\nwant: %s", got[i], want[i])
			}
		})
	}
}

// Contract section 7 and row 1.6: no rule may name these headers, in whatever spelling.
func TestReservedHeaders(t *testing.T) {
	for _, name := range []string{"authorization", "Authorization", "X-API-Key", "Host", "Content-Length", "Connection", "Keep-Alive",
		"Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade"} {
		for _, mode := range []string{"set", "add"} {
			o := check(t, "[[headers]]", "name = "+quote(name), `value = "x"`, "mode = "+quote(mode))
			assert.Check(t, o.code == 2, "%s: exit code %d", name, o.code)
			want := fmt.Sprintf("FILE:2: headers[0].name: no rule may name %s: ", strings.ToLower(name))
			assert.Check(t, len(o.lines()) == 1 && strings.HasPrefix(o.stderr, want), "%s: %s", name, o.stderr)
		}
	}
}

// Contract section 7: no error text repeats what may be a secret, such as a password in a URL or a header's value.
func TestProblemsKeepSecrets(t *testing.T) {
	for _, line := range []string{
		`upstream_url = "https://user:secret@api.example"`,
		`upstream_url = "https://user:secret@api.example:port"`,
		`upstream_url = "https://api.example/?key=secret"`,
		"[[headers]]\nname = \"x\"\nvalue = \"secret\\u0000\"",
	} {
		o := check(t, "[proxy]", line)
		assert.Equal(t, o.code, 2)
		assert.Check(t, !strings.Contains(o.stderr, "secret"), o.stderr)
	}
	o := call(t, nil, "--upstream", "https://user:secret@api.example:port")
	assert.Equal(t, o.code, 2)
	assert.Check(t, !strings.Contains(o.stderr, "secret"), o.stderr)
}
