package proxy

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"gotest.tools/v3/assert"
)

// Row 2.7: a response without Content-Type stays without. net/http guesses one from the first bytes written, unless the
// header is there, if only with no value.
func TestContentTypeIsNotGuessed(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w, x: newExchange(r), metrics: metrics.New(prometheus.NewRegistry(), "", metrics.Limits{}), draining: func() bool { return false }}
		rec.Write([]byte("<html>"))
	}))
	defer s.Close()
	resp, err := http.Get(s.URL)
	assert.NilError(t, err)
	resp.Body.Close()
	assert.DeepEqual(t, resp.Header["Content-Type"], []string(nil))
}
