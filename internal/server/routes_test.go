package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// Contract section 5 and row 1.1: the raw path decides, and nothing is ever redirected. Our own two paths have GET and HEAD only.
func TestRoutes(t *testing.T) {
	routes := New(newOptions()).routes()
	ask := func(method, target string) *httptest.ResponseRecorder {
		rec, req := httptest.NewRecorder(), httptest.NewRequest(method, "/", nil)
		req.RequestURI = target
		routes.ServeHTTP(rec, req)
		return rec
	}
	for _, tt := range []struct{ method, target, want string }{
		{"GET", "/health", `{"status":"healthy"`},
		{"HEAD", "/health", `{"status":"healthy"`}, // net/http leaves the body away
		{"GET", "/health?x=/metrics", `{"status":"healthy"`},
		{"GET", "http://elsewhere.example/health", `{"status":"healthy"`},
		{"GET", "/metrics", "metrics /metrics"},
		{"HEAD", "/metrics?x", "metrics /metrics?x"},
		{"POST", "/healthz", "proxied /healthz"},
		{"GET", "/%68ealth", "proxied /%68ealth"},
		{"GET", "//health", "proxied //health"},
		{"GET", "/health/", "proxied /health/"},
		{"GET", "/v1/../metrics", "proxied /v1/../metrics"},
		{"GET", "//v1//messages", "proxied //v1//messages"},
		{"POST", "/v1/messages?path=/health", "proxied /v1/messages?path=/health"},
		{"OPTIONS", "*", "proxied *"},
		{"GET", "http://health", "proxied http://health"},
		{"CONNECT", "host:443", "proxied host:443"},
	} {
		rec := ask(tt.method, tt.target)
		assert.Check(t, rec.Code == http.StatusOK, "%s %s: status %d", tt.method, tt.target, rec.Code)
		assert.Check(t, strings.HasPrefix(rec.Body.String(), tt.want), "%s %s: %s", tt.method, tt.target, rec.Body)
	}
	for _, target := range []string{"/health", "/metrics"} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "CONNECT"} {
			rec := ask(method, target)
			assert.Check(t, rec.Code == http.StatusMethodNotAllowed && rec.Header().Get("Allow") == "GET, HEAD", "%s %s: %v", method, target, rec)
		}
	}
}

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
