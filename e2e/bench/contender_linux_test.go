package bench

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// contender is a proxy that can run between client and API.
type contender struct {
	name string
	// config is the template of its configuration, a file in this folder. Its data is a place.
	config string
	// command runs it in the foreground, with the configuration file at the given path.
	command func(p place, config string) *exec.Cmd
}

// place holds the values that a configuration needs.
type place struct {
	Dir      string // for its files
	Addr     string // to listen at
	Upstream string // the stand-in's address
	CA       string // file with the certificate to trust
	Far      bool   // the stand-in is at a distance
}

// direct means no proxy: the client talks to the stand-in itself.
const direct = "direct"

var contenders = []contender{
	{"ours", "ours.toml", func(p place, config string) *exec.Cmd {
		cmd := exec.Command(ours, "--config", config)
		cmd.Env = []string{"SSL_CERT_FILE=" + p.CA}
		return cmd
	}},
	{"nginx", "nginx.conf", func(_ place, config string) *exec.Cmd { return exec.Command("nginx", "-e", "stderr", "-c", config) }},
	{"haproxy", "haproxy.cfg", func(_ place, config string) *exec.Cmd { return exec.Command("haproxy", "-db", "-f", config) }},
	{"caddy", "Caddyfile", func(p place, config string) *exec.Cmd {
		cmd := exec.Command("caddy", "run", "--config", config, "--adapter", "caddyfile")
		cmd.Env = []string{"HOME=" + p.Dir}
		return cmd
	}},
	{bareName, "", bareCommand},
	{direct, "", nil},
}

// start runs the contender in its own folder, inside a memory cgroup if one is given, until the end of the benchmark. It returns
// its process number, its address, and how long it took to accept a connection.
func (c contender) start(b *testing.B, p place, group *binary.Cgroup) (pid int, addr string, took time.Duration) {
	b.Helper()
	p.Dir, p.Addr = b.TempDir(), freeAddr(b)
	config := filepath.Join(p.Dir, "config")
	if c.config != "" {
		assert.NilError(b, os.WriteFile(config, []byte(render(b, c.config, p)), 0o600))
	}
	cmd := c.command(p, config)
	if _, err := exec.LookPath(cmd.Path); err != nil {
		b.Skip(err)
	}
	if group != nil {
		under := group.Under()
		cmd.Path, cmd.Args = under[0], append(under, cmd.Args...)
	}
	output, err := os.Create(filepath.Join(p.Dir, "output"))
	assert.NilError(b, err)
	defer output.Close()
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH")) // and nothing else: GOGC and similar variables must not be passed on
	cmd.Dir = p.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	began := time.Now()
	assert.NilError(b, startOn(proxyCPU, cmd))
	pid = cmd.Process.Pid
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // it is killed at the end
	b.Cleanup(func() {
		_ = syscall.Kill(-pid, syscall.SIGKILL) // it may have ended
		<-ended
		if b.Failed() {
			text, _ := os.ReadFile(output.Name())
			b.Logf("%s printed: %s", c.name, text[max(0, len(text)-2000):])
		}
	})
	for { // busy loop: nothing else needs this CPU now
		conn, err := net.Dial("tcp", p.Addr)
		took = time.Since(began)
		if err == nil {
			assert.NilError(b, conn.Close())
			return pid, p.Addr, took
		}
		select {
		case <-ended:
			b.Fatalf("%s ended instead of listening", c.name)
		default:
			assert.Assert(b, took < binary.Patience, "%s does not listen: %v", c.name, err)
		}
	}
}

// startOn starts a command on one CPU. The child inherits it from the thread that forks, which ends with its goroutine.
func startOn(cpu int, cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		var one unix.CPUSet
		one.Set(cpu)
		err := unix.SchedSetaffinity(0, &one)
		if err == nil {
			err = cmd.Start()
		}
		started <- err
	}()
	return <-started
}

// render fills in a configuration.
func render(t testing.TB, name string, p place) string {
	t.Helper()
	var text strings.Builder
	assert.NilError(t, template.Must(template.ParseFiles(name)).Execute(&text, p))
	return text.String()
}

// freeAddr returns an address on which nobody listens.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer l.Close()
	return l.Addr().String()
}
