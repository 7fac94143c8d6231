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

// Cgroup is a memory cgroup (version 1 or 2) with a limit and without swap.
type Cgroup struct {
	dir   string
	limit int64
	v2    bool
}

const cgroups = "/sys/fs/cgroup"

// NewCgroup makes a cgroup whose name contains this process' number. It needs root.
func NewCgroup(limit int64) (*Cgroup, error) {
	g := &Cgroup{limit: limit}
	parent := filepath.Join(cgroups, "memory")
	if _, err := os.Stat(filepath.Join(parent, "cgroup.procs")); err != nil {
		g.v2, parent = true, cgroups
		// Below the root, children have the memory controller only if it is enabled. systemd enables it.
		if err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+memory"), 0); err != nil {
			return nil, fmt.Errorf("no memory cgroup can be made here: %w", err)
		}
	}
	g.dir = filepath.Join(parent, fmt.Sprintf("anthropic-oauth-proxy-%d", os.Getpid()))
	err := os.Mkdir(g.dir, 0o755)
	if err == nil {
		err = g.configure()
	}
	if err != nil {
		g.Remove()
		return nil, fmt.Errorf("no memory cgroup can be made here: %w", err)
	}
	return g, nil
}

// configure sets the limit for memory and swap together. A kernel that does not count swap has no file for it. That is acceptable
// only on a machine without swap.
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
	if !g.v2 {
		// Version 1 counts socket buffers separately, and only if they have a limit.
		if err := set("memory.kmem.tcp.limit_in_bytes", g.limit); err != nil {
			return err
		}
	}
	err := set(swap, swapValue)
	if swaps, readErr := os.ReadFile("/proc/swaps"); err != nil && (readErr != nil || strings.Count(string(swaps), "\n") > 1) {
		return fmt.Errorf("the machine has swap, and this kernel cannot exclude the proxy from it: %w", err)
	}
	return nil
}

// Under is for Config.Under: a shell that moves itself into the cgroup and then becomes the program.
func (g *Cgroup) Under() []string {
	return []string{"/bin/sh", "-c", `echo $$ >"$1" && shift && exec "$@"`, "sh", filepath.Join(g.dir, "cgroup.procs")}
}

// Peak is the most that the kernel has counted against the limit, or 0 if it does not say. Version 1 excludes socket buffers.
func (g *Cgroup) Peak() int64 {
	name := "memory.max_usage_in_bytes"
	if g.v2 {
		name = "memory.peak"
	}
	n, _ := g.number(name)
	return n
}

// Used returns how much memory is in use with socket buffers, as version 2 counts, and how much of that is socket buffers.
func (g *Cgroup) Used() (total, sockets int64) {
	sockets, _ = g.sockets()
	if g.v2 {
		total, _ = g.number("memory.current")
		return total, sockets
	}
	total, _ = g.number("memory.usage_in_bytes")
	return total + sockets, sockets
}

func (g *Cgroup) sockets() (int64, error) {
	if !g.v2 {
		return g.number("memory.kmem.tcp.usage_in_bytes")
	}
	text, err := os.ReadFile(filepath.Join(g.dir, "memory.stat"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if number, found := strings.CutPrefix(line, "sock "); found {
			return strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		}
	}
	return 0, errors.New("memory.stat has no line for socket buffers")
}

// Watch calls Used a hundred times a second. The function it returns stops that and returns the highest value of both.
func (g *Cgroup) Watch() (most func() (total, sockets int64)) {
	var total, sockets int64
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			used, buffers := g.Used()
			total, sockets = max(total, used), max(sockets, buffers)
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	return func() (int64, int64) {
		close(done)
		<-watched
		if g.v2 {
			total = max(total, g.Peak())
		}
		return total, sockets
	}
}

func (g *Cgroup) number(name string) (int64, error) {
	text, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// Kills returns how many processes the kernel has killed for lack of memory, or -1 if that cannot be read.
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

func (g *Cgroup) String() string { return fmt.Sprintf("%d MiB", g.limit>>20) }

// Remove deletes the cgroup. It tries several times, because the kernel releases a process a little after its end.
func (g *Cgroup) Remove() {
	for range 100 {
		if err := os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
