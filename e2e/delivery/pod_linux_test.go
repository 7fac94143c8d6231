package delivery

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"gotest.tools/v3/assert"
)

// A pod is the image as runc would run it for a kubelet: with the manifest's user, arguments, environment, files, capabilities,
// seccomp profile and memory limit, in its own network. There is no kubelet, so there are no probes and no preStop.
type pod struct {
	pid    int // outside of the container
	memory string
	bundle string
	id     string
	logs   lockedBuffer
	ended  chan struct{} // closed when the process has ended; err is then what runc reported
	err    error
}

// startPod returns when the container's process has started.
func startPod(t *testing.T, m manifests, n *network) *pod {
	t.Helper()
	if _, err := exec.LookPath("runc"); err != nil {
		unavailable(t, "runc is not installed: apt-get install runc")
	}
	image := imageFor(t, v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
	p := &pod{bundle: t.TempDir(), id: fmt.Sprintf("delivery-%d-%d", os.Getpid(), time.Now().UnixNano()), ended: make(chan struct{})}
	unpack(t, image, filepath.Join(p.bundle, "rootfs"))
	spec := p.spec(t, m, image, n)
	content, err := json.Marshal(spec)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(p.bundle, "config.json"), content, 0o600))

	pidFile := filepath.Join(p.bundle, "pid")
	cmd := p.runc("run", "--bundle", p.bundle, "--pid-file", pidFile, p.id)
	cmd.Stdout, cmd.Stderr = &p.logs, &p.logs
	assert.NilError(t, cmd.Start())
	go func() { p.err = cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		_ = p.runc("delete", "--force", p.id).Run() // it no longer exists if all went well
		<-p.ended
		if t.Failed() {
			t.Logf("the container printed:\n%s", p.logs.String())
		}
	})
	p.waitFor(t, "the container's process", func() bool {
		content, err := os.ReadFile(pidFile)
		if err != nil {
			return false
		}
		p.pid, err = strconv.Atoi(string(content))
		return err == nil
	})
	p.memory = memoryCgroup(t, p.pid)
	return p
}

func (p *pod) runc(args ...string) *exec.Cmd {
	return exec.Command("runc", append([]string{"--root", filepath.Join(p.bundle, "runc")}, args...)...)
}

func (p *pod) spec(t *testing.T, m manifests, image v1.Image, n *network) *specs.Spec {
	t.Helper()
	config, err := image.ConfigFile()
	assert.NilError(t, err)
	security, container := m.pod().Spec.SecurityContext, m.container()
	env := config.Config.Env
	for _, variable := range container.Env {
		env = append(env, variable.Name+"="+variable.Value)
	}
	for name, content := range m.config.Data {
		p.write(t, filepath.Join("config", name), content)
	}
	p.write(t, "hosts", "127.0.0.1 localhost "+upstreamName+"\n")
	p.write(t, "resolv.conf", "options ndots:1\n")

	memory := container.Resources.Limits.Memory().Value()
	spec := &specs.Spec{
		Version: "1.0.2", // no field here needs a newer version, and Debian's runc accepts no newer one
		Process: &specs.Process{
			User:            specs.User{UID: uint32(*security.RunAsUser), GID: uint32(*security.RunAsGroup)},
			Args:            append(config.Config.Entrypoint, container.Args...),
			Env:             env,
			Cwd:             config.Config.WorkingDir,
			Capabilities:    &specs.LinuxCapabilities{},
			NoNewPrivileges: !*container.SecurityContext.AllowPrivilegeEscalation,
		},
		Root: &specs.Root{Path: "rootfs", Readonly: *container.SecurityContext.ReadOnlyRootFilesystem},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=64k"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: container.VolumeMounts[0].MountPath, Type: "bind", Source: filepath.Join(p.bundle, "config"), Options: []string{"bind", "ro"}},
			{Destination: "/etc/hosts", Type: "bind", Source: filepath.Join(p.bundle, "hosts"), Options: []string{"bind", "ro"}},
			{Destination: "/etc/resolv.conf", Type: "bind", Source: filepath.Join(p.bundle, "resolv.conf"), Options: []string{"bind", "ro"}},
		},
		Linux: &specs.Linux{
			CgroupsPath: "/" + p.id,
			Resources:   &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}},
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace}, {Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: n.path},
			},
			MaskedPaths:   []string{"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	// RuntimeDefault: Docker's profile, on which containerd's is based.
	spec.Linux.Seccomp, err = seccomp.GetDefaultProfile(spec)
	assert.NilError(t, err)
	return spec
}

func (p *pod) write(t *testing.T, name, content string) {
	t.Helper()
	path := filepath.Join(p.bundle, name)
	assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	assert.NilError(t, os.WriteFile(path, []byte(content), 0o644))
}

// memoryCgroup returns the folder of pid's memory cgroup, for cgroups version 1 or 2.
func memoryCgroup(t *testing.T, pid int) string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	assert.NilError(t, err)
	unified := ""
	for line := range strings.Lines(string(content)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case fields[1] == "memory":
			return filepath.Join("/sys/fs/cgroup/memory", fields[2])
		case fields[0] == "0":
			unified = filepath.Join("/sys/fs/cgroup", fields[2])
		}
	}
	return unified
}

// account reads a value from the memory cgroup, by its name in version 2 or in version 1.
func (p *pod) account(t *testing.T, names ...string) int64 {
	t.Helper()
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(p.memory, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		assert.NilError(t, err)
		value, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
		assert.NilError(t, err)
		return value
	}
	t.Fatalf("%s has none of %v", p.memory, names)
	return 0
}

// unpack writes the image's file system to dir.
func unpack(t *testing.T, image v1.Image, dir string) {
	t.Helper()
	archive := mutate.Extract(image)
	defer archive.Close()
	for r := tar.NewReader(archive); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		assert.NilError(t, err)
		path := filepath.Join(dir, filepath.Clean("/"+header.Name))
		assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch header.Typeflag {
		case tar.TypeDir:
			assert.NilError(t, os.MkdirAll(path, 0o755))
		case tar.TypeReg:
			file, err := os.Create(path)
			assert.NilError(t, err)
			_, err = io.Copy(file, r)
			assert.NilError(t, errors.Join(err, file.Close()))
		default:
			t.Fatalf("%s: neither a file nor a folder", header.Name)
		}
		assert.NilError(t, os.Chown(path, header.Uid, header.Gid))
		assert.NilError(t, os.Chmod(path, header.FileInfo().Mode()))
	}
}

// lockedBuffer stores what the container prints, while the test may read it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
