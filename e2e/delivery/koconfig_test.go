package delivery

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// koConfig is .ko.yaml as far as ours uses it. ko itself ignores what it does not know, a misspelt key among it.
type koConfig struct {
	DefaultBaseImage string   `json:"defaultBaseImage"`
	DefaultPlatforms []string `json:"defaultPlatforms"`
	Builds           []struct {
		ID      string   `json:"id"`
		Main    string   `json:"main"`
		Env     []string `json:"env"`
		Flags   []string `json:"flags"`
		Ldflags []string `json:"ldflags"`
	} `json:"builds"`
}

func TestKoConfig(t *testing.T) { assert.NilError(t, checkKoConfig(repository)) }

// checkKoConfig says what in dir/.ko.yaml would make another image than the one that is meant. ko would not say it: what it does
// not understand it leaves out, and the image looks fine.
func checkKoConfig(dir string) error {
	content, err := os.ReadFile(filepath.Join(dir, ".ko.yaml"))
	if err != nil {
		return fmt.Errorf("%w\nwithout .ko.yaml ko builds with its defaults: put it back", err)
	}
	var config koConfig
	if err := unmarshalStrict(content, &config); err != nil {
		return fmt.Errorf(".ko.yaml: %w\ncorrect the spelling: ko ignores keys that it does not know", err)
	}
	if !regexp.MustCompile(`^gcr\.io/distroless/static-debian13:nonroot@sha256:[0-9a-f]{64}$`).MatchString(config.DefaultBaseImage) {
		return fmt.Errorf(".ko.yaml: defaultBaseImage %q must be gcr.io/distroless/static-debian13:nonroot with the digest of its index: "+
			"a tag alone is another base every week", config.DefaultBaseImage)
	}
	var wanted []string
	for _, platform := range platforms {
		wanted = append(wanted, platform.String())
	}
	if !slices.Equal(config.DefaultPlatforms, wanted) {
		return fmt.Errorf(".ko.yaml: defaultPlatforms is %v, must be %v", config.DefaultPlatforms, wanted)
	}
	if len(config.Builds) != 1 {
		return fmt.Errorf(".ko.yaml: %d builds, must be one: anthropic-oauth-proxy", len(config.Builds))
	}
	build := config.Builds[0]
	if build.ID != "anthropic-oauth-proxy" || build.Main != "./"+command {
		return fmt.Errorf(".ko.yaml: builds[0] is %q with main %q, must be anthropic-oauth-proxy with ./%s: "+
			"else ko builds with its defaults", build.ID, build.Main, command)
	}
	var missing []string
	for _, want := range []struct {
		key  string
		have []string
		item string
	}{
		{"env", build.Env, "CGO_ENABLED=0"}, {"env", build.Env, "GOWORK=off"},
		{"flags", build.Flags, "-buildvcs=false"}, {"flags", build.Flags, "-mod=readonly"},
		{"ldflags", build.Ldflags, "-s"}, {"ldflags", build.Ldflags, "-w"},
	} {
		if !slices.Contains(want.have, want.item) {
			missing = append(missing, want.key+": "+want.item)
		}
	}
	if len(missing) > 0 {
		return errors.New(".ko.yaml: builds[0] lacks " + strings.Join(missing, ", ") + ": the image would depend on who builds it")
	}
	return nil
}
