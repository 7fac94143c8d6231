package main

import (
	_ "embed"
	"strings"
)

// The file VERSION is the one place of the version: it is in the source, so a plain `go build`, `go install …@v…`, the flake
// and the image all say the same, and the image's digest still depends on nothing but the source.
//
//go:embed VERSION
var versionFile string

// version returns the version of this program, without a leading v.
func version() string { return strings.TrimSpace(versionFile) }
