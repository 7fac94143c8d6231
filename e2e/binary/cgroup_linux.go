package binary

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// ErrNoCgroup means that this machine, or this user, cannot hold a process to a memory limit.
var ErrNoCgroup = errors.New("no memory cgroup can be made here; that needs Linux and root")

// Cgroup is a memory cgroup, in either version, with a limit and without swap.
type Cgroup struct {
	dir   string
	limit int64
	v2    bool
}

const cgroups = "/sys/fs/cgroup"

// NewCgroup makes a cgroup of this process' own name.
func NewCgroup(limit int64) (*Cgroup, error) {
	g := &Cgroup{limit: limit}
	parent := filepath.Join(cgroups, "memory")
	if _, err := os.Stat(filepath.Join(parent, "cgroup.procs")); err != nil {
		g.v2, parent = true, cgroups
		// Below the root, children have the memory controller only if it is asked for; systemd has done so.
		if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
		}
	}
	g.dir = filepath.Join(parent, fmt.Sprintf("anthropic-oauth-proxy-%d", os.Getpid()))
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	if err := g.configure(); err != nil {
		g.Remove()
		return nil, fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	return g, nil
}

// configure sets the limit, with swap included. A kernel that does not count swap has no file for it, which is as good
// only if there is no swap.
func (g *Cgroup) configure() error {
	set := func(name string, value int64) error {
		return os.WriteFile(filepath.Join(g.dir, name), []byte(strconv.FormatInt(value, 10)), 0)
	}
	memory, swap, swapValue := "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", g.limit
	if g.v2 {
		memory, swap, swapValue = "memory.max", "memory.swap.max", 0
	}
	if err := set(memory, g.limit); err != nil {
		return err
	}
	err := set(swap, swapValue)
	if swaps, readErr := os.ReadFile("/proc/swaps"); err != nil && (readErr != nil || strings.Count(string(swaps), "\n") > 1) {
		return fmt.Errorf("the machine swaps, and that cannot be kept from the proxy: %w", err)
	}
	return nil
}

// Under is for Config.Under: a shell that moves itself inside, and becomes the program.
func (g *Cgroup) Under() []string {
	return []string{"/bin/sh", "-c", `echo $$ >"$1" && shift && exec "$@"`, "sh", filepath.Join(g.dir, "cgroup.procs")}
}

// Usage is what the kernel counts against the limit now, and Peak the most it ever was; 0 if the kernel does not say.
func (g *Cgroup) Usage() int64 { return g.figure("memory.current", "memory.usage_in_bytes") }

// Peak is the most that Usage ever was.
func (g *Cgroup) Peak() int64 { return g.figure("memory.peak", "memory.max_usage_in_bytes") }

func (g *Cgroup) figure(v2, v1 string) int64 {
	name := v1
	if g.v2 {
		name = v2
	}
	text, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n
}

// Kills is how many processes the kernel has killed for want of memory. An error counts as -1, which is not none.
func (g *Cgroup) Kills() int64 {
	name := "memory.oom_control"
	if g.v2 {
		name = "memory.events"
	}
	text, _ := os.ReadFile(filepath.Join(g.dir, name))
	for line := range strings.Lines(string(text)) {
		if number, found := strings.CutPrefix(strings.TrimSpace(line), "oom_kill "); found {
			if n, err := strconv.ParseInt(number, 10, 64); err == nil {
				return n
			}
		}
	}
	return -1
}

func (g *Cgroup) String() string {
	version := 1
	if g.v2 {
		version = 2
	}
	return fmt.Sprintf("%d MiB (cgroup v%d, no swap)", g.limit>>20, version)
}

// Remove deletes the cgroup; the kernel lets go of a process a little after its end.
func (g *Cgroup) Remove() {
	for range 100 {
		if err := os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
