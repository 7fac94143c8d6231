module github.com/basher83/anthropic-oauth-proxy/k8s/migration

go 1.26.0
