package standin

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
)

// message is the part of a body that the stand-in itself needs.
type message struct {
	Model  string `json:"model"`
	Stream bool   `json:"stream"`
}

// betaFields are the top-level fields that are allowed only with one of their flags.
var betaFields = map[string][]string{
	"context_management":    {"context-management-2025-06-27", "compact-2026-01-12"},
	"compaction":            {"compact-2026-09-04"},
	"mcp_servers":           {"mcp-client-2025-04-04", "mcp-client-2025-11-20", "mcp-client-2026-09-15"},
	"fallbacks":             {"server-side-fallback-2026-06-01", "server-side-fallback-2026-07-01"},
	"fallback_credit_token": {"fallback-credit-2026-06-01", "fallback-credit-2026-07-01"},
	"output_format":         {"structured-outputs-2025-11-13"},
	"thread":                {"message-threads-2026-08-12"},
}

// checkBody reads a body. It refuses a missing required field, and a beta's field without the beta's flag in h.
func checkBody(h http.Header, body []byte, required ...string) (m message, refusal *Error) {
	var fields map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(body, &fields), json.Unmarshal(body, &m)); err != nil {
		return m, invalid("The request body is not valid JSON: %v", err)
	}
	for _, name := range required {
		if _, ok := fields[name]; !ok {
			return m, invalid("%s: Field required", name)
		}
	}
	flags := betaFlags(h)
	for name, enabling := range betaFields {
		enabled := slices.ContainsFunc(enabling, func(flag string) bool { return slices.Contains(flags, flag) })
		if _, ok := fields[name]; ok && !enabled {
			return m, invalid("%s: Extra inputs are not permitted", name)
		}
	}
	return m, nil
}
