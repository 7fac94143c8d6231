// Package pod reads what the manifests say about the proxy's process, so that it can be run as it is deployed.
package pod

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/pelletier/go-toml/v2"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// Pod is the process in k8s/: its memory limit in bytes, its environment, its configuration and what that says.
type Pod struct {
	Memory int64
	Env    []string
	Config string

	Retries, MaxConnections        int64
	MaxBodyBytes, MaxBufferedBytes int64
}

// Read takes everything as it is deployed, but for timeout_secs: tests cannot wait for ten minutes.
func Read(timeout time.Duration) (Pod, error) {
	root, err := binary.Root()
	if err != nil {
		return Pod{}, err
	}
	var p Pod
	if err := p.readDeployment(filepath.Join(root, "k8s", "deployment.yaml")); err != nil {
		return p, err
	}
	return p, p.readConfig(filepath.Join(root, "k8s", "config.toml"), timeout)
}

func (p *Pod) readDeployment(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var deployment appsv1.Deployment
	if err := yaml.UnmarshalStrict(text, &deployment); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	containers := deployment.Spec.Template.Spec.Containers
	if len(containers) != 1 || containers[0].Resources.Limits.Memory().IsZero() {
		return fmt.Errorf("%s: want one container, with a memory limit", file)
	}
	p.Memory = containers[0].Resources.Limits.Memory().Value()
	for _, v := range containers[0].Env {
		p.Env = append(p.Env, v.Name+"="+v.Value)
	}
	return nil
}

func (p *Pod) readConfig(file string, timeout time.Duration) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var all map[string]any
	if err := toml.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	section, _ := all["proxy"].(map[string]any)
	for key, value := range map[string]*int64{
		"retries": &p.Retries, "max_connections": &p.MaxConnections,
		"max_body_bytes": &p.MaxBodyBytes, "max_buffered_bytes": &p.MaxBufferedBytes,
	} {
		number, ok := section[key].(int64)
		if !ok {
			return fmt.Errorf("%s: [proxy] says nothing of %s", file, key)
		}
		*value = number
	}
	section["timeout_secs"] = int64(timeout / time.Second)
	text, err = toml.Marshal(all)
	p.Config = string(text)
	return err
}
