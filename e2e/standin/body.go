package standin

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// message is what the stand-in itself needs to know of a body.
type message struct {
	Model  string `json:"model"`
	Stream bool   `json:"stream"`
}

// The top-level fields that need no beta, as in the official SDK's types without beta.
var (
	messageFields = strings.Fields(`model messages max_tokens stream system tools tool_choice metadata stop_sequences
		thinking output_config cache_control container diagnostics inference_geo service_tier speed`)
	countFields    = strings.Fields(`model messages system tools tool_choice thinking output_config cache_control speed`)
	samplingFields = strings.Fields(`temperature top_k top_p`) // gone in the newer version
)

func messageFieldsOf(version string) []string {
	if version == olderVersion {
		return slices.Concat(messageFields, samplingFields)
	}
	return messageFields
}

// betaFields are the top-level fields that exist only together with one of their flags.
var betaFields = map[string][]string{
	"context_management":    {"context-management-2025-06-27", "compact-2026-01-12"},
	"compaction":            {"compact-2026-09-04"},
	"mcp_servers":           {"mcp-client-2025-04-04", "mcp-client-2025-11-20", "mcp-client-2026-09-15"},
	"fallbacks":             {"server-side-fallback-2026-06-01", "server-side-fallback-2026-07-01"},
	"fallback_credit_token": {"fallback-credit-2026-06-01", "fallback-credit-2026-07-01"},
	"output_format":         {"structured-outputs-2025-11-13"},
	"thread":                {"message-threads-2026-08-12"},
}

// checkBody reads a body and refuses it if a required field is missing, or a field is there
// that does not exist, or not without a flag that h lacks.
func checkBody(h http.Header, body []byte, required, allowed []string) (message, *Error) {
	flags := betaFlags(h)
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return message{}, invalid("The request body is not valid JSON: %v", err)
	}
	for _, name := range required {
		if _, ok := fields[name]; !ok {
			return message{}, invalid("%s: Field required", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if slices.Contains(allowed, name) {
			continue
		}
		enabled := slices.ContainsFunc(betaFields[name], func(flag string) bool { return slices.Contains(flags, flag) })
		if !enabled {
			return message{}, invalid("%s: Extra inputs are not permitted", name)
		}
	}
	var m message
	if err := json.Unmarshal(body, &m); err != nil {
		return message{}, invalid("The request body has a field of the wrong type: %v", err)
	}
	if m.Model == "" {
		return message{}, invalid("model: String should have at least 1 character")
	}
	if list := bytes.TrimSpace(fields["messages"]); !bytes.HasPrefix(list, []byte("[{")) {
		return message{}, invalid("messages: at least one message is required")
	}
	return m, nil
}
