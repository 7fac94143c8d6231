//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/pod"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// Seconds of everything, over both protocols, under the memory limit.
func TestSoak(t *testing.T) {
	var report, progress bytes.Buffer
	err := run(t.Context(), []string{
		"-minutes", "0.16", "-timeout", "4s", "-pace", "50",
	}, &report, &progress)
	t.Logf("%s%s", &progress, &report)
	assert.NilError(t, err)
	for _, row := range []string{"| stream |", "| upload in a burst |", "| stream in a wave |", "| client leaves waiting |"} {
		assert.Check(t, is.Contains(report.String(), row))
	}
	assert.Check(t, is.Equal(strings.Count(report.String(), "Nothing is unexplained, and nothing has grown.\n"), 2))
	if os.Getenv("CI") == "true" {
		assert.Check(t, is.Equal(strings.Count(report.String(), "(cgroup v"), 2), "there was no memory limit")
	}
}

// Every recipe makes a plan, and what it does not want is unexplained, unless a reset explains it.
func TestJudge(t *testing.T) {
	own := `{"type":"error","error":{"type":"proxy_error","message":"upstream connection failed"}}`
	whole, cut := plan{status: 200}, plan{status: 200, broken: true, Part: standin.Part{Events: 3, End: standin.Cut}}
	drop := plan{status: 502, own: "upstream", kind: "dropped"}
	wrong := fmt.Errorf("%w: x", client.ErrWrongBytes)
	for _, test := range []struct {
		name           string
		p              plan
		res            result
		reset, explain bool
		unexplained    bool
	}{
		{name: "whole", p: whole, res: result{status: 200}},
		{name: "502", p: whole, res: result{status: 502, own: own}, unexplained: true},
		{name: "502 of a reset", p: whole, res: result{status: 502, own: own}, reset: true, explain: true},
		{name: "cut", p: whole, res: result{status: 200, err: errHang}, unexplained: true},
		{name: "broken by a reset", p: whole, res: result{status: 200, err: http.ErrAbortHandler}, reset: true, explain: true},
		{name: "no answer, whatever was reset", p: whole, res: result{err: http.ErrAbortHandler}, reset: true, unexplained: true},
		{name: "wrong bytes, whatever was reset", p: whole, res: result{status: 200, err: wrong}, reset: true, unexplained: true},
		{name: "broken as planned", p: cut, res: result{status: 200, events: 3, err: http.ErrAbortHandler}, explain: true},
		{name: "broken too soon", p: cut, res: result{status: 200, events: 2, err: http.ErrAbortHandler}, unexplained: true},
		{name: "not broken", p: cut, res: result{status: 200, events: 3}, unexplained: true},
		{name: "dropped as planned", p: drop, res: result{status: 502, own: own}, explain: true},
		{name: "not dropped", p: drop, res: result{status: 200}, unexplained: true},
		{name: "another error of ours", p: plan{status: refused, own: "too large"}, res: result{status: 502, own: own}, unexplained: true},
		{name: "refused", p: plan{status: refused, own: "failed"}, res: result{status: 413, own: own}, explain: true},
		{name: "left", p: whole, res: result{left: true, err: errLeft}, explain: true},
	} {
		explained, problem := test.p.judge(test.res, test.reset)
		assert.Check(t, explained == test.explain && (problem != "") == test.unexplained, "%s: %v, %q", test.name, explained, problem)
	}
	m, seen := mix{pod.Pod{MaxBodyBytes: 32 * mib}, 20 * time.Second, 1}, map[string]bool{}
	for n := range 20000 {
		seen[m.single(fmt.Sprint("single-", n)).kind] = true
	}
	assert.Equal(t, len(seen), len(recipes))
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-protocols", "h3"}, {"-timeout", "1500ms"}, {"-minutes", "0"}, {"-pace", "0"}, {"more"}} {
		_, err := parseFlags(args, &bytes.Buffer{})
		assert.Check(t, err != nil, "%v", args)
	}
}
