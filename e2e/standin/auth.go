package standin

import (
	"net/http"
	"slices"
	"strings"
)

// OAuthFlag is the beta flag that an OAuth token needs.
const OAuthFlag = "oauth-2025-04-20"

const (
	oauthPrefix  = "sk-ant-oat01-"
	apiKeyPrefix = "sk-ant-api03-"
)

// authorize accepts any credential of the right form. The important rule is the last one: an OAuth
// token is valid only together with its beta flag.
func authorize(h http.Header) *Error {
	if key := h.Get("X-Api-Key"); key != "" {
		if !hasSecret(key, apiKeyPrefix) {
			return unauthorized("invalid x-api-key")
		}
		return nil
	}
	auth := h.Get("Authorization")
	if auth == "" {
		return unauthorized("x-api-key header is required")
	}
	token, bearer := strings.CutPrefix(auth, "Bearer ")
	if !bearer || !hasSecret(token, oauthPrefix) {
		return unauthorized("Invalid bearer token")
	}
	if !slices.Contains(betaFlags(h), OAuthFlag) {
		return unauthorized("OAuth authentication is currently not supported.")
	}
	return nil
}

func hasSecret(s, prefix string) bool {
	return strings.HasPrefix(s, prefix) && len(s) > len(prefix)
}

// checkVersion joins repeated lines as HTTP says, so it refuses a repeated header like the original.
func checkVersion(h http.Header) *Error {
	switch got := strings.Join(h.Values("Anthropic-Version"), ", "); got {
	case "2023-06-01", "2026-10-21":
		return nil
	case "":
		return invalid("anthropic-version: header is required")
	default:
		return invalid("anthropic-version: %q is not a valid version", got)
	}
}
