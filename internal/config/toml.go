package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// reader reads the sources of a Config and collects every problem.
type reader struct {
	*Config
	keys     []key          // of [proxy]
	lines    map[string]int // of the file, by path
	problems []problem
}

type problem struct {
	line int // in the file, or 0
	text string
}

// report adds a problem with a key of the file. text says what would be right.
func (r *reader) report(path, text string) {
	r.reject(fmt.Sprintf("%s:%d: %s", r.File, r.lines[path], path), text)
	r.problems[len(r.problems)-1].line = r.lines[path]
}

// reject adds a problem with a flag, a variable or a whole file. An empty text means no problem.
func (r *reader) reject(source, text string) {
	if text != "" {
		r.problems = append(r.problems, problem{0, source + ": " + text})
	}
}

// err returns all problems, one line each, or nil.
func (r *reader) err() error {
	slices.SortFunc(r.problems, func(a, b problem) int { return cmp.Or(a.line-b.line, cmp.Compare(a.text, b.text)) })
	var errs []error
	for _, p := range r.problems {
		errs = append(errs, errors.New(p.text))
	}
	return errors.Join(errs...)
}

func (r *reader) readFile(data []byte) {
	var root map[string]any
	if err := toml.Unmarshal(data, &root); err != nil {
		line := 0
		var decode *toml.DecodeError
		if errors.As(err, &decode) {
			line, _ = decode.Position()
		}
		r.reject(fmt.Sprintf("%s:%d", r.File, line), "not valid TOML: "+strings.TrimPrefix(err.Error(), "toml: "))
		return
	}
	r.lines = lineNumbers(data)
	for name, value := range root {
		section, isSection := value.(map[string]any)
		list, isList := value.([]any)
		switch {
		case name == "proxy" && isSection:
			r.readTable("proxy", section, r.keys, "[proxy]")
		case name == "proxy":
			r.report(name, "must be a section, [proxy]")
		case name == "headers" && isList:
			r.readRules(list)
		case name == "headers":
			r.report(name, "must be a list of rules: [[headers]] sections, or headers = [] for none")
		case name == "tailscale":
			r.Warnings = append(r.Warnings, fmt.Sprintf("%s:%d: the section [tailscale] is ignored and may be deleted", r.File, r.lines[name]))
		default:
			r.report(join("", name), "unknown; a configuration has the sections [proxy] and [[headers]]")
		}
	}
	if r.Proxy.MaxBufferedBytes < r.Proxy.MaxBodyBytes {
		path := "proxy.max_buffered_bytes"
		if r.lines[path] == 0 {
			path = "proxy.max_body_bytes" // the other one has its default
		}
		r.report(path, fmt.Sprintf("max_buffered_bytes (%d) must be at least max_body_bytes (%d)", r.Proxy.MaxBufferedBytes, r.Proxy.MaxBodyBytes))
	}
}

// readTable passes each value of a table to its key. title is the table's name in messages.
func (r *reader) readTable(path string, table map[string]any, keys []key, title string) {
	for name, value := range table {
		var names []string
		wrong := "unknown key"
		for _, k := range keys {
			if names = append(names, k.name); k.name == name {
				wrong = k.set(value)
			}
		}
		if wrong == "unknown key" {
			wrong += fmt.Sprintf("; %s has %s", title, strings.Join(names, ", "))
		}
		if wrong != "" {
			r.report(join(path, name), wrong)
		}
	}
}
