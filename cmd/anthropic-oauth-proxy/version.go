package main

import (
	_ "embed"
	"strings"
)

// The file VERSION is the only place where the version is written. It is part of the source, so `go build`, `go install …@v…`,
// the flake and the image all have the same version, and the image's digest depends only on the source.
//
//go:embed VERSION
var versionFile string

// version returns the version of this program, without a leading v.
func version() string { return strings.TrimSpace(versionFile) }
