package server

import (
	"net/http"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/target"
)

// routes compares the raw path. An http.ServeMux would clean paths first and answer //v1/messages with a redirect.
func (s *Server) routes() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var own http.Handler
		switch target.Path(r.RequestURI) {
		case "/health":
			own = http.HandlerFunc(s.health)
		case "/metrics":
			own = s.opts.Metrics
		default:
			s.running.Add(1)
			defer s.running.Add(-1)
			s.opts.Proxy.ServeHTTP(w, r)
			return
		}
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(ownTimeout))
		if s.Draining() {
			w.Header().Set("Connection", "close")
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			own = s.opts.NotAllowed
		}
		own.ServeHTTP(w, r)
	})
}
