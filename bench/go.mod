module github.com/basher83/anthropic-oauth-proxy/bench

go 1.26.0

require golang.org/x/sys v0.49.0
