package standin

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// knownFlags are the accepted beta flags: those that the official SDKs name for the endpoints served here, and those that Claude Code
// 2.1 sends. If a client is refused because of a new flag that the API accepts, add the flag here.
var knownFlags = strings.Fields(`
	oauth-2025-04-20 claude-code-20250219

	advisor-tool-2026-03-01 cache-diagnosis-2026-04-07 code-execution-2025-05-22 compact-2026-01-12 compact-2026-09-04
	computer-use-2024-10-22 computer-use-2025-01-24 computer-use-2025-11-24 context-1m-2025-08-07
	context-management-2025-06-27 dev-full-thinking-2025-05-14 extended-cache-ttl-2025-04-11
	fallback-credit-2026-06-01 fallback-credit-2026-07-01 fast-mode-2026-02-01 files-api-2025-04-14
	inline-tools-2026-09-15 interleaved-thinking-2025-05-14 mcp-client-2025-04-04 mcp-client-2025-11-20
	mcp-client-2026-09-15 message-batches-2024-09-24 message-threads-2026-08-12
	mid-conversation-output-config-2026-07-01 mid-conversation-system-clear-at-2026-08-21
	mid-conversation-tool-changes-2026-07-01 model-context-window-exceeded-2025-08-26 output-128k-2025-02-19
	output-300k-2026-03-24 pdfs-2024-09-25 prompt-caching-2024-07-31 server-side-fallback-2026-06-01
	server-side-fallback-2026-07-01 skills-2025-10-02 structured-outputs-2025-11-13 task-budgets-2026-03-13
	thinking-binding-controls-2026-08-01 thinking-display-updates-2026-08-18 thinking-token-count-2026-05-13
	token-counting-2024-11-01 token-efficient-tools-2025-02-19

	advanced-tool-use-2025-11-20 effort-2025-11-24 fine-grained-tool-streaming-2025-05-14
	per-turn-control-2026-07-01 prompt-caching-scope-2026-01-05
`)

func betaFlags(h http.Header) []string {
	var flags []string
	for _, line := range h.Values("Anthropic-Beta") {
		for token := range strings.SplitSeq(line, ",") {
			flags = append(flags, strings.TrimSpace(token))
		}
	}
	return flags
}

// checkBetas refuses unknown and repeated flags. The text about repeated ones is ours.
func checkBetas(h http.Header) *Error {
	flags := betaFlags(h)
	var unknown, repeated []string
	for i, flag := range flags {
		quoted := fmt.Sprintf("`%s`", flag)
		switch {
		case !slices.Contains(knownFlags, flag):
			unknown = append(unknown, quoted)
		case slices.Contains(flags[:i], flag):
			repeated = append(repeated, quoted)
		}
	}
	if unknown != nil {
		return invalid("Unexpected value(s) %s for the `anthropic-beta` header. Please consult our documentation at platform.claude.com/docs or try again without the header.", strings.Join(unknown, ", "))
	}
	if repeated != nil {
		return invalid("Repeated value(s) %s for the `anthropic-beta` header.", strings.Join(repeated, ", "))
	}
	return nil
}
