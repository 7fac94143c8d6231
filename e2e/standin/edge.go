package standin

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxBody is the original's limit for one request.
const maxBody = 32 << 20

// handler is the outermost layer. Like the original's edge it handles every path: it records the
// request, gives it an id, and sets the headers that every answer has.
func (s *Server) handler() http.Handler {
	api := s.api()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case PartPath:
			s.play(w, r)
			return
		case PartPath + "/release":
			s.Release()
			w.WriteHeader(http.StatusNoContent)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		req := &Request{
			Method: r.Method, URI: r.RequestURI, Host: r.Host, Proto: r.Proto,
			Header: r.Header.Clone(), Body: body, ID: newID("req_"), done: make(chan struct{}),
		}
		out := &statusWriter{ResponseWriter: w}
		defer func() {
			req.status, req.gone = out.status, r.Context().Err() != nil
			close(req.done)
			s.log("%s %s %s %d %s anthropic-beta: %s", req.Method, req.URI, req.Proto, req.status, req.ID, strings.Join(req.Flags(), ","))
		}()
		s.record(req)
		edgeHeaders(w.Header(), req.ID)
		if err != nil {
			writeError(out, r, &Error{Status: http.StatusRequestEntityTooLarge, Type: "request_too_large", Message: "Request exceeds the maximum size"})
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		api.ServeHTTP(out, r)
	})
}

func edgeHeaders(h http.Header, id string) {
	h.Set("Request-Id", id)
	h.Set("Anthropic-Organization-Id", "00000000-0000-4000-8000-000000000000")
	h.Set("Server", "cloudflare")
	h.Set("Cf-Cache-Status", "DYNAMIC")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains; preload")
	h.Set("X-Robots-Tag", "none")
	// The cookie lets tests find a log line that prints response headers.
	h.Set("Set-Cookie", "_cfuvid="+CookieSecret+"; HttpOnly; Secure; Path=/")
}

// CookieSecret is the value of the cookie in every answer. No log may contain it.
const CookieSecret = "standin-cookie-value"

// rateLimitHeaders are the headers of a subscription's answers. For the 5-hour and the 7-day window
// they give the used fraction, and when the window resets, in seconds since 1970.
func rateLimitHeaders(h http.Header, status string) {
	fiveHours := strconv.FormatInt(time.Now().Add(5*time.Hour).Unix(), 10)
	sevenDays := strconv.FormatInt(time.Now().Add(7*24*time.Hour).Unix(), 10)
	used := "0.42"
	if status == "rejected" {
		used = "1.0"
	}
	for name, value := range map[string]string{
		"Status":                  status,
		"Reset":                   fiveHours,
		"Representative-Claim":    "five_hour",
		"5h-Status":               status,
		"5h-Utilization":          used,
		"5h-Reset":                fiveHours,
		"7d-Status":               "allowed",
		"7d-Utilization":          "0.17",
		"7d-Reset":                sevenDays,
		"Fallback-Percentage":     "0.5",
		"Overage-Status":          "rejected",
		"Overage-Disabled-Reason": "org_level_disabled",
	} {
		h.Set("Anthropic-Ratelimit-Unified-"+name, value)
	}
}

// writeJSON compresses if the client accepts it, as the edge does.
func writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own maps and structs
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Vary", "Accept-Encoding")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		var buf bytes.Buffer
		z := gzip.NewWriter(&buf)
		_, _ = z.Write(body) // into memory
		_ = z.Close()
		body = buf.Bytes()
		w.Header().Set("Content-Encoding", "gzip")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the context reports a client that left
}

func newID(prefix string) string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + hex.EncodeToString(b[:])
}

// statusWriter remembers the status for Request.Status.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
