package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Contract section 7: --help prints every flag, every variable, the signals and the exit codes to standard output, and exits with 0.
func TestHelp(t *testing.T) {
	for _, flag := range []string{"--help", "-h"} {
		o := call(t, nil, flag)
		assert.Equal(t, o.code, 0)
		assert.Equal(t, o.stderr, "")
		for _, want := range []string{"Usage: anthropic-oauth-proxy", "--config", "--listen", "--upstream", "--log-level", "--check", "--doctor",
			"--print-config", "--version", "CONFIG_PATH", "LOG_LEVEL", "HTTPS_PROXY", "127.0.0.1:8080", "https://api.anthropic.com",
			"./anthropic-oauth-proxy.toml", "Ctrl-C", "SIGTERM", "SIGHUP", "Exit codes: 0 ", " 1 ", "--doctor found a fault", " 2 ", " 130 "} {
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

// Contract sections 6 and 7: wrong flags cause exit code 2 and one line that says what is wrong.
func TestWrongFlags(t *testing.T) {
	t.Chdir(t.TempDir())
	for args, want := range map[string]string{
		"--listn 127.0.0.1:1":           `flag provided but not defined: --listn; --help lists the flags`,
		"-listn 127.0.0.1:1":            `flag provided but not defined: -listn; --help lists the flags`,
		"-v":                            `flag provided but not defined: -v, did you mean --version?; --help lists the flags`,
		"--v":                           `flag provided but not defined: --v, did you mean --version?; --help lists the flags`,
		"--log=debug":                   `flag provided but not defined: --log, did you mean --log-level?; --help lists the flags`,
		"--check --listen":              `--listen needs a value; --help lists the flags`,
		"--config":                      `--config needs a value; --help lists the flags`,
		"--config --check":              `--config needs a value, not "--check"; --help lists the flags`,
		"--config --listen 127.0.0.1:1": `--config needs a value, not "--listen"; --help lists the flags`,
		"--config= --check":             `--config needs a value, not "";`,
		"serve":                         `unexpected argument "serve": there are only flags; --help lists the flags`,
		"--check -- --listen":           `unexpected argument "--listen"`,
		"--check=maybe":                 `invalid boolean value "maybe" for --check: `,
		"--check --doctor":              `--doctor cannot be combined with --check or --print-config; it checks the configuration first; --help lists the flags`,
		"--doctor --print-config":       `--doctor cannot be combined with`,
		"--listen=":                     `--listen needs a value, not "";`,
		"--upstream=":                   `--upstream needs a value, not "";`,
		"--log-level=":                  `--log-level needs a value, not "";`,
	} {
		o := call(t, nil, strings.Fields(args)...)
		assert.Check(t, o.code == 2 && o.stdout == "", "%s: exit code %d, %s", args, o.code, o.stdout)
		assert.Check(t, len(o.lines()) == 1 && strings.HasPrefix(o.stderr, want), "%s: got %swant %s", args, o.stderr, want)
	}
}

// Contract sections 6 and 7, on the program itself: which output goes where, the exit codes, the real environment and the real working
// directory. What is wrong is said before anything listens, and nothing else is.
func TestProgramWithoutServing(t *testing.T) {
	t.Parallel()
	const file = "anthropic-oauth-proxy.toml"
	for _, tt := range []struct {
		env, args, local string
		want             outcome
	}{
		{"", "--check", "headers = []", outcome{0, "configuration ok: " + file + "\n", ""}},
		{"", "--listen=127.0.0.1:0", "[proxy]\nretries = 9", outcome{2, "", file + ":2: proxy.retries: must be a whole number from 0 to 5, not 9\n"}},
		{"CONFIG_PATH=missing.toml", "--listen=127.0.0.1:0", "headers = []",
			outcome{2, "", "CONFIG_PATH: cannot read the configuration file: open missing.toml: no such file or directory\n"}},
	} {
		cmd := exec.Command(binary, tt.args)
		cmd.Dir, cmd.Env = t.TempDir(), []string{"GORACE=atexit_sleep_ms=10", tt.env}
		assert.NilError(t, os.WriteFile(filepath.Join(cmd.Dir, file), []byte(tt.local), 0o600))
		var stdout, stderr strings.Builder
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		cmd.Run() // its error is the exit code
		assert.Equal(t, outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}, tt.want)
	}
}
