package proxy

import (
	"context"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/target"
)

// log writes the request's line (contract section 8): no query, no header value but the two ids, no body.
func (p *proxy) log(x *exchange, outcome metrics.Outcome) {
	level := slog.LevelInfo
	if x.status >= 500 && !x.answered || outcome != metrics.Complete && outcome != metrics.ClientGone {
		level = slog.LevelWarn
	}
	if x.end.IsZero() {
		x.end = time.Now()
	}
	attrs := []slog.Attr{
		slog.String("request_id", x.id),
		slog.String("upstream_request_id", x.upstreamID),
		slog.String("method", x.request.Method),
		slog.String("path", loggedPath(x.request.RequestURI)),
		slog.Int("status", x.status),
		slog.Int("attempts", x.attempts),
		slog.Int64("bytes_in", x.bytesIn),
		slog.Int64("bytes_out", x.bytesOut),
		slog.Int64("headers_ms", x.headersTime.Milliseconds()),
		slog.Int64("duration_ms", x.end.Sub(x.start).Milliseconds()),
		slog.String("outcome", string(outcome)),
	}
	if x.failure != nil {
		attrs = append(attrs, slog.String("error", x.failure.Error()))
	}
	p.Logger.LogAttrs(context.Background(), level, "request", attrs...)
}

// maxLoggedPath is how much of a path the log keeps, in bytes.
const maxLoggedPath = 1 << 10

// userinfo is what stands before an @ where a URL has its host.
var userinfo = regexp.MustCompile(`//[^/]*@`)

// loggedPath is the path of a request target as the log may show it: without query, fragment and userinfo, at most maxLoggedPath
// long, control characters escaped.
func loggedPath(requestURI string) string {
	path, _, _ := strings.Cut(target.Path(requestURI), "#")
	path = userinfo.ReplaceAllLiteralString(path, "//")
	path = path[:min(len(path), maxLoggedPath)]
	if quoted := strconv.Quote(path); len(quoted) != len(path)+2 {
		path = quoted[1 : len(quoted)-1]
	}
	return path[:min(len(path), maxLoggedPath)]
}
