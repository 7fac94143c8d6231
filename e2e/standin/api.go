package standin

import (
	"io"
	"net/http"
	"strconv"
)

// api routes by hand: the original knows exact paths, and never redirects a crooked one.
func (s *Server) api() http.Handler {
	routes := map[string]struct {
		method string
		serve  http.HandlerFunc
	}{
		"/v1/messages":              {http.MethodPost, s.messages},
		"/v1/messages/count_tokens": {http.MethodPost, s.countTokens},
		"/v1/models":                {http.MethodGet, s.models},
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Claude Code looks here whether the API can be reached at all. No credential is needed.
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
	allowed := messageFieldsOf(r.Header.Get("Anthropic-Version"))
	m, refusal := checkBody(r.Header, body, []string{"model", "max_tokens", "messages"}, allowed)
	if refusal != nil {
		writeError(w, r, refusal)
		return
	}
	sc := s.scene()
	if sc.After == 0 {
		switch {
		case sc.Error != nil:
			writeError(w, r, sc.Error)
			return
		case sc.Hang:
			<-r.Context().Done()
			return
		case sc.Cut:
			panic(http.ErrAbortHandler)
		}
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
	if _, refusal := checkBody(r.Header, body, []string{"model", "messages"}, countFields); refusal != nil {
		writeError(w, r, refusal)
		return
	}
	writeJSON(w, r, http.StatusOK, map[string]any{"input_tokens": tokens(body)})
}

// tokens depends on every byte's being there, which is all that a proxy's test needs of it.
func tokens(body []byte) int { return 1 + len(body)/4 }

// Models are the ids that GET /v1/models lists, in this order.
var Models = []string{"claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-4-5"}

// models lists them in pages, as the parameters limit and after_id say: a query that was lost on the way shows.
func (s *Server) models(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit, ids := 20, Models
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			writeError(w, r, invalid("limit: Input should be a number from 1 to 1000"))
			return
		}
		limit = n
	}
	if after := query.Get("after_id"); after != "" {
		for len(ids) > 0 {
			id := ids[0]
			ids = ids[1:]
			if id == after {
				break
			}
		}
	}
	page := ids[:min(limit, len(ids))]
	data := []any{}
	for _, id := range page {
		data = append(data, map[string]any{"type": "model", "id": id, "display_name": id, "created_at": "2026-01-01T00:00:00Z"})
	}
	answer := map[string]any{"data": data, "has_more": len(page) < len(ids), "first_id": nil, "last_id": nil}
	if len(page) > 0 {
		answer["first_id"], answer["last_id"] = page[0], page[len(page)-1]
	}
	writeJSON(w, r, http.StatusOK, answer)
}
