// Package pod reads from the manifests how the proxy is deployed, so that tests can run it in the same way.
package pod

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// Pod is the proxy's process in k8s/: its memory limit in bytes, its environment, its configuration, and some values in that.
type Pod struct {
	Memory int64
	Env    []string
	Config string

	Retries, MaxConnections, MaxBodyBytes, MaxBufferedBytes int64
}

// Read reads the deployed settings, and replaces some settings of the [proxy] section.
func Read(settings map[string]int64) (p Pod, err error) {
	root, err := binary.Root()
	if err != nil {
		return p, err
	}
	objects, err := Render(filepath.Join(root, "k8s"))
	if err != nil {
		return p, err
	}
	deployment, ok := objects["Deployment oauth-proxy"].(*appsv1.Deployment)
	if !ok {
		return p, fmt.Errorf("k8s/ has no Deployment oauth-proxy")
	}
	containers := deployment.Spec.Template.Spec.Containers
	if len(containers) != 1 || containers[0].Resources.Limits.Memory().IsZero() {
		return p, fmt.Errorf("deployment.yaml: want one container, with a memory limit")
	}
	p.Memory = containers[0].Resources.Limits.Memory().Value()
	for _, v := range containers[0].Env {
		p.Env = append(p.Env, v.Name+"="+v.Value)
	}

	file, err := os.ReadFile(filepath.Join(root, "k8s", "config.toml"))
	if err != nil {
		return p, err
	}
	var all map[string]any
	if err := toml.Unmarshal(file, &all); err != nil {
		return p, fmt.Errorf("config.toml: %w", err)
	}
	section, _ := all["proxy"].(map[string]any)
	for key, value := range map[string]*int64{"retries": &p.Retries, "max_connections": &p.MaxConnections,
		"max_body_bytes": &p.MaxBodyBytes, "max_buffered_bytes": &p.MaxBufferedBytes} {
		number, ok := section[key].(int64)
		if !ok {
			return p, fmt.Errorf("config.toml: [proxy] does not set %s", key)
		}
		*value = number
	}
	for key, value := range settings {
		section[key] = value
	}
	text, err := toml.Marshal(all)
	p.Config = string(text)
	return p, err
}
