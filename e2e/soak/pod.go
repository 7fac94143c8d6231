package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// pod is what the manifests say about the proxy's process.
type pod struct {
	memory int64    // the limit, in bytes
	env    []string // NAME=value
	config []byte   // config.toml, with another timeout_secs

	retries          int
	maxConnections   int
	maxBodyBytes     int64
	maxBufferedBytes int64
}

// repository is the root of the module around this one.
func repository() (string, error) {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(filepath.Dir(strings.TrimSpace(string(gomod)))), nil
}

func readPod(root string, timeout time.Duration) (pod, error) {
	var p pod
	if err := p.readDeployment(filepath.Join(root, "k8s", "deployment.yaml")); err != nil {
		return p, err
	}
	return p, p.readConfig(filepath.Join(root, "k8s", "config.toml"), timeout)
}

func (p *pod) readDeployment(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var deployment appsv1.Deployment
	if err := yaml.UnmarshalStrict(text, &deployment); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	containers := deployment.Spec.Template.Spec.Containers
	if len(containers) != 1 {
		return fmt.Errorf("%s has %d containers, want the proxy's", file, len(containers))
	}
	p.memory = containers[0].Resources.Limits.Memory().Value()
	if p.memory == 0 {
		return fmt.Errorf("%s: the container has no memory limit, so there is nothing to hold it to", file)
	}
	for _, v := range containers[0].Env {
		p.env = append(p.env, v.Name+"="+v.Value)
	}
	return nil
}

// readConfig takes the file as it is but for timeout_secs. Addresses are given as flags, which come before the file.
func (p *pod) readConfig(file string, timeout time.Duration) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var limits struct {
		Proxy struct {
			Retries          int   `toml:"retries"`
			MaxConnections   int   `toml:"max_connections"`
			MaxBodyBytes     int64 `toml:"max_body_bytes"`
			MaxBufferedBytes int64 `toml:"max_buffered_bytes"`
		} `toml:"proxy"`
	}
	var all map[string]any
	if err := toml.Unmarshal(text, &limits); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	if err := toml.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	section, ok := all["proxy"].(map[string]any)
	if !ok || limits.Proxy.MaxConnections == 0 || limits.Proxy.MaxBodyBytes == 0 || limits.Proxy.MaxBufferedBytes == 0 {
		return fmt.Errorf("%s: no section [proxy], or one without its limits", file)
	}
	section["timeout_secs"] = int64(timeout / time.Second)
	p.retries, p.maxConnections = limits.Proxy.Retries, limits.Proxy.MaxConnections
	p.maxBodyBytes, p.maxBufferedBytes = limits.Proxy.MaxBodyBytes, limits.Proxy.MaxBufferedBytes
	p.config, err = toml.Marshal(all)
	return err
}

// build compiles the proxy as the image does, without cgo.
func build(root, dir string) (string, error) {
	file := filepath.Join(dir, "anthropic-oauth-proxy")
	cmd := exec.Command("go", "build", "-o", file, "./cmd/anthropic-oauth-proxy")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the proxy in %s: %w\n%s", root, err, out)
	}
	return file, nil
}
