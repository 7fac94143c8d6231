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

// log writes the request's line (contract section 8). It contains no query, no body, and of all headers only the two ids.
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
		slog.String("method", x.request.Method[:min(len(x.request.Method), maxLoggedMethod)]),
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

// The most bytes of a method and of a path that are logged.
const (
	maxLoggedMethod = 32
	maxLoggedPath   = 1 << 10
)

// userinfo matches user and password in a URL.
var userinfo = regexp.MustCompile(`//[^/]*@`)

// loggedPath returns the path of a request target for the log: without query, fragment and userinfo, at most maxLoggedPath long, and
// with control characters escaped.
func loggedPath(requestURI string) string {
	path, _, _ := strings.Cut(target.Path(requestURI), "#")
	path = userinfo.ReplaceAllLiteralString(path, "//")
	path = path[:min(len(path), maxLoggedPath)]
	if quoted := strconv.Quote(path); len(quoted) != len(path)+2 {
		path = quoted[1 : len(quoted)-1]
	}
	return path[:min(len(path), maxLoggedPath)]
}
