package delivery

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Each mistake is made in a copy of the repository, and the check that should catch it must, with a sentence that says what to do.

func TestMistakesInManifestsAreCaught(t *testing.T) {
	for _, mistake := range []struct {
		name, file, old, new string
		check                func(dir string) error
		says                 []string
	}{
		{"misspelt field", "deployment.yaml", "terminationGracePeriodSeconds: 630", "terminationGracePeriodSecond: 630",
			loads, []string{"kind: Deployment", `unknown field "spec.template.spec.terminationGracePeriodSecond"`, "correct the spelling"}},
		{"misspelt kind", "service.yaml", "kind: Service", "kind: Servise",
			loads, []string{"Servise", "correct the spelling"}},
		{"repeated field", "deployment.yaml", "  replicas: 1\n", "  replicas: 1\n  replicas: 2\n",
			loads, []string{"the Deployment oauth-proxy", `"replicas" already defined`, "mend the field"}},
		{"wrong type", "service.yaml", "port: 80\n", "port: eighty\n",
			loads, []string{"kind: Service", "ports.port", "the type of its value"}},
		{"misspelt resource", "kustomization.yaml", "- service.yaml", "- services.yaml",
			loads, []string{"services.yaml", "mend what Kustomize names"}},
		{"forgotten resource", "kustomization.yaml", "  - networkpolicy.yaml\n", "",
			loads, []string{"5 kinds of objects", "resources: in k8s/kustomization.yaml"}},
		{"unknown key of Kustomize", "kustomization.yaml", "resources:", "resource:",
			loads, []string{`unknown field "resource"`, "mend what Kustomize names"}},
		{"a Secret", "serviceaccount.yaml", "kind: ServiceAccount", "kind: Secret",
			loads, []string{"Secret", "automountServiceAccountToken"}},
		{"a sidecar", "deployment.yaml", "      volumes:\n", "        - name: tailscaled\n          image: tailscale\n      volumes:\n",
			loads, []string{"2 containers", "without sidecars"}},
		{"a privileged container", "deployment.yaml", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true",
			admits, []string{"allowPrivilegeEscalation", "mend the securityContext"}},
		{"root", "deployment.yaml", "runAsNonRoot: true", "runAsNonRoot: false",
			admits, []string{"runAsNonRoot", "mend the securityContext"}},
		{"a lax namespace", "namespace.yaml", "enforce: restricted", "enforce: baseline",
			admits, []string{"enforce: restricted", "k8s/namespace.yaml"}},
		{"unknown key of the configuration", "config.toml", "retries = 2", "retrys = 2",
			starts, []string{"k8s/config.toml", "retrys"}},
		{"a rule for a credential", "config.toml", `name = "anthropic-beta"`, `name = "authorization"`,
			starts, []string{"k8s/config.toml", "authorization"}},
	} {
		t.Run(mistake.name, func(t *testing.T) {
			dir := t.TempDir()
			copyManifests(t, dir)
			assert.NilError(t, mistake.check(dir), "before the mistake")
			edit(t, filepath.Join(dir, "k8s", mistake.file), mistake.old, mistake.new)
			saysWhatToDo(t, mistake.check(dir), mistake.says...)
		})
	}
}

func TestMistakesInTheApplicationAreCaught(t *testing.T) {
	for _, mistake := range []struct{ name, old, new, says string }{
		{"misspelt field", "targetRevision:", "targetRevison:", `unknown field "spec.source.targetRevison"`},
		{"wrong case", "selfHeal:", "selfheal:", `unknown field "spec.syncPolicy.automated.selfheal"`},
		{"repeated field", "project: default", "project: default\n  project: other", `"project" already set`},
	} {
		t.Run(mistake.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "application.yaml")
			assert.NilError(t, copyFile(filepath.Join(repository, "k8s", "argocd", "application.yaml"), file))
			edit(t, file, mistake.old, mistake.new)
			content, err := os.ReadFile(file)
			assert.NilError(t, err)
			_, err = decodeApplication(content)
			saysWhatToDo(t, err, mistake.says, "correct the spelling")
		})
	}
}

func loads(dir string) error { _, err := load(dir); return err }

func admits(dir string) error {
	m, err := load(dir)
	if err != nil {
		return err
	}
	return checkPodSecurity(m)
}

func starts(dir string) error { return checkConfig(filepath.Join(dir, "k8s", "config.toml")) }

func TestMistakesInKoConfigAreCaught(t *testing.T) {
	for _, mistake := range []struct {
		name, old, new string
		says           []string
	}{
		{"misspelt key", "  flags:", "  flag:", []string{`unknown field "builds[0].flag"`, "correct the spelling"}},
		{"another main", "./" + command, "./internal/config", []string{"builds[0]", "main", "./" + command}},
		{"a floating base", "nonroot@sha256:", "nonroot # ", []string{"defaultBaseImage", "digest"}},
		{"a platform less", "linux/arm64", "linux/arm/v7", []string{"defaultPlatforms", "linux/arm64"}},
		{"cgo left open", "CGO_ENABLED=0", "CGO_ENABLED=1", []string{"lacks env: CGO_ENABLED=0"}},
		{"a stamp of the commit", "-buildvcs=false", "-buildvcs=true", []string{"lacks flags: -buildvcs=false"}},
	} {
		t.Run(mistake.name, func(t *testing.T) {
			dir := t.TempDir()
			assert.NilError(t, copyFile(filepath.Join(repository, ".ko.yaml"), filepath.Join(dir, ".ko.yaml")))
			edit(t, filepath.Join(dir, ".ko.yaml"), mistake.old, mistake.new)
			saysWhatToDo(t, checkKoConfig(dir), mistake.says...)
		})
	}
	t.Run("no file", func(t *testing.T) {
		saysWhatToDo(t, checkKoConfig(t.TempDir()), ".ko.yaml", "put it back")
	})
}

// ko's own silence: it builds another main with its defaults and says nothing.
func TestKoThatIgnoresItsConfigIsCaught(t *testing.T) {
	requireKo(t)
	source, err := checkout()
	assert.NilError(t, err)
	dir := t.TempDir()
	assert.NilError(t, clone(source, dir))
	edit(t, filepath.Join(dir, ".ko.yaml"), "./"+command, "./k8s")
	_, err = koRun{dir: dir, repo: "mistake"}.build("--platform=linux/amd64", "--push=false")
	saysWhatToDo(t, err, "did not use the build config", "builds[0].main in .ko.yaml must be ./"+command)
}

func TestMistakesInTheImageReferenceAreCaught(t *testing.T) {
	requireKo(t)
	host, err := registryHost()
	assert.NilError(t, err)
	source, err := checkout()
	assert.NilError(t, err)
	const image = "image: ko://" + importPath
	for _, mistake := range []struct {
		name, old, new string
		says           []string
	}{
		{"a command that does not exist", image, image + "-next", []string{importPath + "-next", "must be ko://" + importPath}},
		{"a package that is no command", image, "image: ko://" + module + "/internal/config", []string{"internal/config", "must be ko://" + importPath}},
		{"an image by tag", image, "image: ghcr.io/basher83/anthropic-oauth-proxy:latest", []string{"is not a digest", "must be ko://" + importPath}},
		{"a reference inside an argument", "--config=/etc", "--image=ko://" + importPath + " --config=/etc", []string{"a ko:// is left", "only as image:"}},
	} {
		t.Run(mistake.name, func(t *testing.T) {
			dir := t.TempDir()
			copyManifests(t, dir)
			edit(t, filepath.Join(dir, "k8s", "deployment.yaml"), mistake.old, mistake.new)
			documents, err := render(dir)
			assert.NilError(t, err)
			resolved, err := koRun{dir: source, repo: "mistake", stdin: []byte(strings.Join(documents, "---\n"))}.resolve()
			if err == nil {
				err = checkResolved(resolved, host+"/mistake")
			}
			saysWhatToDo(t, err, mistake.says...)
		})
	}
}

func saysWhatToDo(t *testing.T, err error, words ...string) {
	t.Helper()
	assert.Assert(t, err != nil, "the mistake was not noticed")
	for _, word := range words {
		assert.ErrorContains(t, err, word)
	}
}

func copyManifests(t *testing.T, dir string) {
	t.Helper()
	assert.NilError(t, os.CopyFS(filepath.Join(dir, "k8s"), os.DirFS(filepath.Join(repository, "k8s"))))
}

func edit(t *testing.T, file, old, new string) {
	t.Helper()
	content, err := os.ReadFile(file)
	assert.NilError(t, err)
	assert.Assert(t, strings.Contains(string(content), old), "%s no longer contains %q: the mistake must be made elsewhere", file, old)
	assert.NilError(t, os.WriteFile(file, []byte(strings.ReplaceAll(string(content), old, new)), 0o644))
}
