package server

import (
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// Contract section 8: clients that speak TLS cause at most one warning a minute.
func TestTLSWarningIsRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakes()
		s := New(f.opts)
		for _, tt := range []struct {
			wait  time.Duration
			lines int
		}{{0, 1}, {0, 1}, {59 * time.Second, 1}, {time.Second, 2}, {time.Second, 2}, {time.Hour, 3}} {
			time.Sleep(tt.wait)
			s.warnTLS()
			assert.Equal(t, len(f.log.lines), tt.lines)
		}
	})
}
