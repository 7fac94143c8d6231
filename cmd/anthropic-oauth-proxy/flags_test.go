package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Contract section 7: --help goes to standard output, names every flag and every variable, and is no error.
func TestHelp(t *testing.T) {
	for _, flag := range []string{"--help", "-h"} {
		o := call(t, nil, flag)
		assert.Equal(t, o.code, 0)
		assert.Equal(t, o.stderr, "")
		for _, want := range []string{"Usage: anthropic-oauth-proxy", "-config", "-listen", "-upstream", "-log-level", "-check",
			"-print-config", "-version", "CONFIG_PATH", "LOG_LEVEL", "127.0.0.1:8080", "https://api.anthropic.com", "./anthropic-oauth-proxy.toml"} {
			assert.Check(t, strings.Contains(o.stdout, want), "%s is not in the help text:\n%s", want, o.stdout)
		}
	}
}

// Contract section 7: --version prints one line, whatever the configuration.
func TestVersion(t *testing.T) {
	o := call(t, map[string]string{"CONFIG_PATH": "/missing"}, "--version")
	assert.Equal(t, o.code, 0)
	assert.Equal(t, o.stderr, "")
	assert.Check(t, strings.Count(o.stdout, "\n") == 1 && len(o.stdout) > 1, "%q", o.stdout)
}

// Contract section 6 and 7: exit code 2 for wrong flags, with a line that says what is wrong.
func TestWrongFlags(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"--listn", "127.0.0.1:1"}, []string{"listn", "--help"}},
		{[]string{"--listen"}, []string{"listen", "--help"}},
		{[]string{"serve"}, []string{`"serve"`, "--help"}},
		{[]string{"--check", "--", "--listen"}, []string{`"--listen"`, "--help"}},
		{[]string{"--check=maybe"}, []string{"check", "maybe"}},
		{[]string{"--listen", "8080"}, []string{`--listen: must be "host:port"`, `"8080"`}},
		{[]string{"--listen", ""}, []string{`--listen: must be "host:port"`}},
		{[]string{"--upstream", "api.anthropic.com"}, []string{"--upstream: must be an http or https URL"}},
		{[]string{"--upstream", ""}, []string{"--upstream: must be an http or https URL"}},
		{[]string{"--log-level", "loud"}, []string{`--log-level: must be debug, info, warn or error, not "loud"`}},
		{[]string{"--log-level", ""}, []string{"--log-level: must be debug, info, warn or error"}},
	} {
		o := call(t, nil, tt.args...)
		assert.Check(t, o.code == 2, "%q: exit code %d", tt.args, o.code)
		assert.Check(t, o.stdout == "", "%q: %s", tt.args, o.stdout)
		assert.Check(t, len(o.lines()) == 1, "%q: %s", tt.args, o.stderr)
		for _, want := range tt.want {
			assert.Check(t, strings.Contains(o.stderr, want), "%q: %s is not in %s", tt.args, want, o.stderr)
		}
	}
}

// Contract section 7: wrong flags, a wrong variable and a wrong file are reported together.
func TestAllSourcesAtOnce(t *testing.T) {
	file := writeConfig(t, "[proxy]", "retries = 9")
	o := call(t, map[string]string{"LOG_LEVEL": "loud"}, "--config", file, "--listen", "x", "--upstream", "y")
	assert.Equal(t, o.code, 2)
	assert.Equal(t, len(o.lines()), 4, o.stderr)
	for _, want := range []string{file + ":2: proxy.retries: ", "--listen: ", "--upstream: ", "LOG_LEVEL: "} {
		assert.Check(t, strings.Contains("\n"+o.stderr, "\n"+want), "%s is not in %s", want, o.stderr)
	}
	o = call(t, nil, "--config", "/missing.toml", "--listen", "x")
	assert.Equal(t, len(o.lines()), 2, o.stderr)
}

// Contract section 7: --log-level wins over LOG_LEVEL, and info is the default. A left-over variable's warning shows
// which one counts.
func TestLogLevel(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, tt := range []struct {
		env   string
		args  []string
		warns bool
	}{
		{"", nil, true},
		{"debug", nil, true},
		{"info", nil, true},
		{"warn", nil, true},
		{"error", nil, false},
		{"error", []string{"--log-level", "debug"}, true},
		{"debug", []string{"--log-level", "error"}, false},
		{"loud", []string{"--log-level", "error"}, false},
	} {
		env := map[string]string{"LOG_LEVEL": tt.env, "TAILSCALE_SOCKET": "x"}
		o := call(t, env, append(tt.args, "--check")...)
		assert.Check(t, o.code == 0 && (o.stderr != "") == tt.warns, "LOG_LEVEL=%s %q: exit code %d, %s", tt.env, tt.args, o.code, o.stderr)
	}
	o := call(t, map[string]string{"LOG_LEVEL": "loud"}, "--check")
	assert.Equal(t, o, outcome{2, "", "LOG_LEVEL: must be debug, info, warn or error, not \"loud\"\n"})
}

// Contract sections 6 and 7, on the program itself: which output goes where, the exit codes, the real environment and the
// real working directory. What is wrong is said before anything listens, and nothing else is.
func TestProgramWithoutServing(t *testing.T) {
	t.Parallel()
	const missing = "missing.toml: cannot read the configuration file: no such file or directory\n"
	for _, tt := range []struct {
		env, args, local string
		want             outcome
	}{
		{"", "--check", "", outcome{0, "configuration ok: built-in defaults\n", ""}},
		{"", "--check", "headers = []", outcome{0, "configuration ok: anthropic-oauth-proxy.toml\n", ""}},
		{"", "--listen=127.0.0.1:0", "[proxy]\nretries = 9", outcome{2, "", "anthropic-oauth-proxy.toml:2: proxy.retries: must be a whole number from 0 to 5, not 9\n"}},
		{"", "--config=missing.toml", "headers = []", outcome{2, "", missing}},
		{"CONFIG_PATH=missing.toml", "--listen=127.0.0.1:0", "headers = []", outcome{2, "", missing}},
		{"LOG_LEVEL=loud", "--listen=127.0.0.1:0", "", outcome{2, "", "LOG_LEVEL: must be debug, info, warn or error, not \"loud\"\n"}},
	} {
		cmd := exec.Command(binary, tt.args)
		cmd.Dir, cmd.Env = t.TempDir(), []string{"GORACE=atexit_sleep_ms=10", tt.env}
		if tt.local != "" {
			assert.NilError(t, os.WriteFile(filepath.Join(cmd.Dir, "anthropic-oauth-proxy.toml"), []byte(tt.local), 0o600))
		}
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Run() // its error is the exit code
		assert.Equal(t, outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}, tt.want)
	}
}
