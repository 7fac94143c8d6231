package main

import (
	"embed"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
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
	// debian is the package that holds its program.
	debian string
	// health says that GET /health tells when it is ready; for the others a connection must do.
	health bool
}

// place is what a configuration has to name.
type place struct {
	Dir          string // for its files
	Port         int    // to listen at
	UpstreamPort int    // the stand-in's
	CA           string // file with the certificate to trust
	User         string // who runs this
}

//go:embed nginx.conf haproxy.cfg Caddyfile ours.toml
var configs embed.FS

var contenders = []contender{
	{name: "ours", config: "ours.toml", health: true, command: func(r *rig, p place, config string) *exec.Cmd {
		cmd := exec.Command(r.ours, "--config", config)
		cmd.Env = []string{"SSL_CERT_FILE=" + p.CA}
		return cmd
	}},
	{name: "nginx", config: "nginx.conf", debian: "nginx-light", command: func(_ *rig, _ place, config string) *exec.Cmd {
		return exec.Command("nginx", "-e", "stderr", "-c", config)
	}},
	{name: "haproxy", config: "haproxy.cfg", debian: "haproxy", command: func(_ *rig, _ place, config string) *exec.Cmd {
		return exec.Command("haproxy", "-db", "-f", config)
	}},
	{name: "caddy", config: "Caddyfile", debian: "caddy", command: func(_ *rig, p place, config string) *exec.Cmd {
		cmd := exec.Command("caddy", "run", "--config", config, "--adapter", "caddyfile")
		cmd.Env = []string{"HOME=" + p.Dir}
		return cmd
	}},
	{name: "naive-h1", command: naive("h1")},
	{name: "naive-h2", command: naive("h2")},
}

// direct is no contender: the client speaks to the stand-in itself, and delays are given as what a contender adds to it.
var direct = contender{name: "direct"}

func contenderNames() []string {
	var names []string
	for _, c := range contenders {
		names = append(names, c.name)
	}
	return names
}

// selectContenders looks the names up, and their programs.
func selectContenders(list string) ([]contender, error) {
	names, err := selected("only", list, contenderNames())
	if err != nil {
		return nil, err
	}
	var chosen []contender
	for _, name := range names {
		for _, c := range contenders {
			if c.name != name {
				continue
			}
			if c.debian != "" {
				if _, err := exec.LookPath(c.name); err != nil {
					return nil, fmt.Errorf("%w (Debian's package is %s; -only leaves it out)", err, c.debian)
				}
			}
			chosen = append(chosen, c)
		}
	}
	return chosen, nil
}

// start runs the contender in a folder of its own and returns at once; its output, access log included, goes to files
// there.
func (c contender) start(r *rig) (*process, error) {
	dir, err := os.MkdirTemp(r.dir, c.name+"-")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	p := place{Dir: dir, Port: port, UpstreamPort: r.standin.port, CA: r.standin.caFile, User: me.Username}
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
	for name, stream := range map[string]*io.Writer{"stdout": &cmd.Stdout, "stderr": &cmd.Stderr} {
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		defer file.Close()
		*stream = file
	}
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH")) // and nothing else: GOGC and its like stay here
	return startPinned(r.proxyCPU, cmd, fmt.Sprintf("127.0.0.1:%d", port))
}

// render fills in a configuration.
func render(name string, p place) (string, error) {
	t, err := template.New(name).Option("missingkey=error").ParseFS(configs, name)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	if err := t.Execute(&text, p); err != nil {
		return "", err
	}
	return text.String(), nil
}

// copyFile copies a program, so that its pages are not shared with the one that runs already.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
