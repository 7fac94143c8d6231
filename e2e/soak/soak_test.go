//go:build linux

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// A few seconds of the whole load, over both protocols, under the memory limit.
func TestSoak(t *testing.T) {
	var report, progress bytes.Buffer
	err := run(t.Context(), []string{"-minutes", "0.16", "-timeout", "4s", "-pace", "50"}, &report, &progress)
	t.Logf("%s%s", &progress, &report)
	assert.NilError(t, err)
	for _, row := range []string{"| stream |", "| upload in a burst |", "| stream in a wave |", "| client leaves waiting |"} {
		assert.Check(t, is.Contains(report.String(), row))
	}
	assert.Check(t, is.Equal(strings.Count(report.String(), "All ended as planned, and nothing has grown.\n"), 2))
	if os.Getenv("CI") == "true" {
		assert.Check(t, !strings.Contains(report.String(), "no memory limit"))
	}
}
