package server

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// Contract section 8: clients that speak TLS cause at most one warning a minute.
func TestTLSWarningIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOptions()
		var log bytes.Buffer
		o.Logger = slog.New(slog.NewTextHandler(&log, nil))
		s := New(o)
		for _, tt := range []struct {
			wait  time.Duration
			lines int
		}{{0, 1}, {0, 1}, {59 * time.Second, 1}, {time.Second, 2}, {time.Second, 2}, {time.Hour, 3}} {
			time.Sleep(tt.wait)
			s.warnTLS()
			assert.Equal(t, strings.Count(log.String(), "\n"), tt.lines)
		}
	})
}
