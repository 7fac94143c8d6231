//go:build linux

package main

import (
	"embed"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
)

// contender is something that can stand between client and API.
type contender struct {
	name string
	// config is the template of its configuration, a file in this folder. It sees a place.
	config string
	// command starts it in the foreground, with its configuration at the given path.
	command func(r *rig, p place, config string) *exec.Cmd
}

// place is what a configuration has to name.
type place struct {
	Dir      string // for its files
	Addr     string // to listen at
	Upstream string // the stand-in's address
	CA       string // file with the certificate to trust
	Far      bool   // the stand-in is at a distance
}

//go:embed nginx.conf haproxy.cfg Caddyfile ours.toml
var configs embed.FS

var contenders = []contender{
	{name: "ours", config: "ours.toml", command: func(r *rig, p place, config string) *exec.Cmd {
		cmd := exec.Command(r.ours, "--config", config)
		cmd.Env = []string{"SSL_CERT_FILE=" + p.CA}
		return cmd
	}},
	{name: "nginx", config: "nginx.conf", command: func(_ *rig, _ place, config string) *exec.Cmd {
		return exec.Command("nginx", "-e", "stderr", "-c", config)
	}},
	{name: "haproxy", config: "haproxy.cfg", command: func(_ *rig, _ place, config string) *exec.Cmd {
		return exec.Command("haproxy", "-db", "-f", config)
	}},
	{name: "caddy", config: "Caddyfile", command: func(_ *rig, p place, config string) *exec.Cmd {
		cmd := exec.Command("caddy", "run", "--config", config, "--adapter", "caddyfile")
		cmd.Env = []string{"HOME=" + p.Dir}
		return cmd
	}},
	{name: bareName, command: bareCommand},
}

// direct is no contender: the client speaks to the stand-in itself, and delays are given as what a contender adds to it.
var direct = contender{name: "direct"}

// output is the file with all that a contender prints.
const output = "output"

// start runs the contender in a folder of its own and returns at once; its output and its access log go to files there.
func (c contender) start(r *rig) (*process, error) {
	dir, err := os.MkdirTemp(r.dir, c.name+"-")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	p := place{Dir: dir, Addr: addr, Upstream: r.upstream, CA: r.standin.CAFile, Far: r.far > 0}
	config := ""
	if c.config != "" {
		config = filepath.Join(dir, c.config)
		text, err := render(c.config, p)
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	cmd := c.command(r, p, config)
	cmd.Dir = dir
	output, err := os.Create(filepath.Join(dir, output))
	if err != nil {
		return nil, err
	}
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH")) // and nothing else: GOGC and its like stay here
	return startPinned(r.proxyCPU, cmd, addr)
}

// render fills in a configuration.
func render(name string, p place) (string, error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(configs, name)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	err = t.Execute(&text, p)
	return text.String(), err
}

// freeAddr returns an address that nobody listens at.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
