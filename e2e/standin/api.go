package standin

import (
	"io"
	"net/http"
)

// api routes by hand, because the original compares exact paths and never redirects.
func (s *Server) api() http.Handler {
	routes := map[string]struct {
		method string
		serve  http.HandlerFunc
	}{
		"/v1/messages":              {http.MethodPost, s.messages},
		"/v1/messages/count_tokens": {http.MethodPost, s.countTokens},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Claude Code requests this path to see whether it can reach the API. It needs no credential.
		if r.URL.Path == "/api/hello" {
			writeJSON(w, r, http.StatusOK, map[string]any{"message": "hello"})
			return
		}
		route, ok := routes[r.URL.Path]
		if !ok {
			writeError(w, r, &Error{Status: http.StatusNotFound, Type: "not_found_error", Message: "Not found"})
			return
		}
		if r.Method != route.method {
			writeError(w, r, &Error{Status: http.StatusMethodNotAllowed, Type: "invalid_request_error", Message: "Method Not Allowed"})
			return
		}
		for _, check := range []func(http.Header) *Error{authorize, checkVersion, checkBetas} {
			if err := check(r.Header); err != nil {
				writeError(w, r, err)
				return
			}
		}
		route.serve(w, r)
	})
}

func (s *Server) messages(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // already in memory
	m, refusal := checkBody(r.Header, body, "model", "max_tokens", "messages")
	if refusal != nil {
		writeError(w, r, refusal)
		return
	}
	sc := s.scene()
	switch {
	case sc.Error != nil:
		writeError(w, r, sc.Error)
		return
	case sc.Hang:
		<-r.Context().Done()
		return
	}
	content := sc.Content
	if content == nil {
		content = greeting
	}
	rateLimitHeaders(w.Header(), "allowed")
	if m.Stream {
		stream(w, r, sc, events(m.Model, content, tokens(body)))
		return
	}
	writeJSON(w, r, http.StatusOK, wholeMessage(m.Model, content, tokens(body)))
}

func (s *Server) countTokens(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // already in memory
	if _, refusal := checkBody(r.Header, body, "model", "messages"); refusal != nil {
		writeError(w, r, refusal)
		return
	}
	writeJSON(w, r, http.StatusOK, map[string]any{"input_tokens": tokens(body)})
}

// tokens depends on every byte of the body. A proxy's test needs no more.
func tokens(body []byte) int { return 1 + len(body)/4 }
