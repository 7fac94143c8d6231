package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// Ten seconds of everything, under the memory limit. With this seed, whatever does not take too long happens early.
func TestSoak(t *testing.T) {
	var report, progress bytes.Buffer
	err := run(t.Context(), []string{
		"-seed", "1222", "-minutes", "0.17", "-streams", "50", "-rate", "8", "-timeout", "6s",
		"-hangup", "1s", "-reset", "4s", "-burst", "3s", "-wave", "2s",
	}, &report, &progress)
	if errors.Is(err, errNoCgroup) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	t.Logf("%s%s", &progress, &report)
	assert.NilError(t, err)
	for _, row := range []string{"| stream |", "| upload in a burst |", "| stream in a wave |", "| dropped request |", "| first attempt stalled |", "| the client leaves while waiting |"} {
		assert.Check(t, is.Contains(report.String(), row))
	}
	assert.Check(t, strings.HasSuffix(report.String(), "Nothing is unexplained, and nothing has grown.\n"))
}

func TestFlags(t *testing.T) {
	for _, args := range [][]string{{"-protocol", "h3"}, {"-timeout", "1500ms"}, {"-minutes", "0"}, {"-rate", "0"}, {"more"}} {
		_, err := parseFlags(args, &bytes.Buffer{})
		assert.Check(t, err != nil, "%v", args)
	}
}
