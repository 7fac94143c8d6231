package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strings"
)

// Problem is one thing that is wrong, and what would be right.
type Problem struct {
	Source string // the file, the flag or the environment variable
	Line   int    // in the file, or 0
	Key    string // in the file, or ""
	Text   string
}

// String is the problem's line on standard error: "file:line: key: text".
func (p Problem) String() string {
	s := p.Source
	if p.Line > 0 {
		s += fmt.Sprintf(":%d", p.Line)
	}
	if p.Key != "" {
		s += ": " + p.Key
	}
	return s + ": " + p.Text
}

// Problems is everything that is wrong, as an error.
type Problems []Problem

// Error has a line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Load returns the effective configuration: flags win over the environment, the environment over the file, the file over
// the defaults. flags holds those that were given, by name ("config", "listen", "upstream", "log-level"). Its error is a
// Problems with all that is wrong at once.
func Load(flags map[string]string, getenv func(string) string) (Config, error) {
	c := Default()
	var problems Problems

	c.File = cmp.Or(flags["config"], getenv("CONFIG_PATH"))
	if name, given := flags["config"]; given && name == "" {
		problems = append(problems, Problem{Source: "--config", Text: "must name a file"})
	}
	named := c.File != ""
	data, err := os.ReadFile(cmp.Or(c.File, FileName))
	switch {
	case err == nil:
		c.File = cmp.Or(c.File, FileName)
		problems = append(problems, c.readFile(bytes.TrimPrefix(data, []byte("\ufeff")))...)
	case named || !errors.Is(err, fs.ErrNotExist):
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		problems = append(problems, Problem{Source: cmp.Or(c.File, FileName), Text: fmt.Sprintf("cannot read the configuration file: %v", err)})
	}
	if getenv("TAILSCALE_SOCKET") != "" {
		text := "the environment variable TAILSCALE_SOCKET is ignored and may be deleted"
		if len(c.Warnings) > 0 { // of the section; one warning says it all
			text = c.Warnings[0] + "; " + text
		}
		c.Warnings = []string{text}
	}

	set := func(source, value string, apply func(*Config, any) string) {
		if text := apply(&c, value); text != "" {
			problems = append(problems, Problem{Source: source, Text: text})
		}
	}
	if v, ok := flags["listen"]; ok {
		set("--listen", v, setListenAddr)
	}
	if v, ok := flags["upstream"]; ok {
		set("--upstream", v, setUpstreamURL)
	}
	if v, ok := flags["log-level"]; ok {
		set("--log-level", v, setLogLevel)
	} else if v := getenv("LOG_LEVEL"); v != "" {
		set("LOG_LEVEL", v, setLogLevel)
	}
	if len(problems) > 0 {
		slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
		return Config{}, problems
	}
	c.warn()
	return c, nil
}

func setLogLevel(c *Config, v any) string {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	level, ok := levels[strings.ToLower(v.(string))]
	if !ok {
		return fmt.Sprintf("must be debug, info, warn or error, not %q", v)
	}
	c.LogLevel = level
	return ""
}
