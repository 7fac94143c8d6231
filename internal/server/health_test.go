package server

import (
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// Contract section 5: /health, to the byte, while serving and while draining.
func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := startIn(t, newOptions())
		time.Sleep(90*time.Second - time.Millisecond)
		first, second := b.connect(), b.connect()
		second.get("/")
		resp, body := first.get("/health")
		assert.Equal(t, resp.StatusCode, 200)
		assert.Equal(t, resp.Close, false)
		assert.Equal(t, resp.Header.Get("Content-Type"), "application/json")
		assert.Equal(t, body, `{"status":"healthy","uptime_seconds":89,"requests_served":3,"errors_total":2,"in_flight":1}`+"\n")

		b.beginDrain()
		synctest.Wait()
		time.Sleep(time.Millisecond)
		resp, body = second.get("/health")
		assert.Equal(t, resp.StatusCode, 503)
		assert.Equal(t, resp.Close, true)
		assert.Equal(t, resp.Header.Get("Content-Type"), "application/json")
		assert.Equal(t, body, `{"status":"draining","uptime_seconds":90,"requests_served":3,"errors_total":2,"in_flight":1}`+"\n")
	})
}
