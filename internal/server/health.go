package server

import (
	"encoding/json"
	"net/http"
	"time"
)

// Counts are the numbers that /health shows.
type Counts struct {
	RequestsServed int64 `json:"requests_served"`
	ErrorsTotal    int64 `json:"errors_total"`
	InFlight       int64 `json:"in_flight"`
}

// health answers GET /health: 200 while serving, 503 while draining (contract section 5). It depends only on the listener.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	body := struct {
		Status        string `json:"status"`
		UptimeSeconds int64  `json:"uptime_seconds"`
		Counts
	}{"healthy", int64(time.Since(s.started).Seconds()), s.opts.Health()}
	status := http.StatusOK
	if s.Draining() {
		body.Status, status = "draining", http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
