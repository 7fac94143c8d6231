package distance

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Host is a network namespace at the other end of a cable. Making one needs root and iproute2.
type Host struct {
	name string
	// ends are the cable's two, ours first.
	ends [2]string
}

// The two ends of the cable.
const (
	ourSide  = "10.231.7.1"
	peerSide = "10.231.7.2"
)

// NewHost makes a host; there is room for one at a time.
func NewHost() (*Host, error) {
	name := fmt.Sprintf("peer%d", os.Getpid())
	h := &Host{name: name, ends: [2]string{name + "a", name + "b"}}
	if err := run("ip", "netns", "add", name); err != nil {
		return nil, err
	}
	for _, command := range []string{
		"ip link add " + h.ends[0] + " type veth peer name " + h.ends[1],
		"ip link set " + h.ends[1] + " netns " + name,
		"ip addr add " + ourSide + "/30 dev " + h.ends[0],
		"ip link set " + h.ends[0] + " up",
		"ip -n " + name + " addr add " + peerSide + "/30 dev " + h.ends[1],
		"ip -n " + name + " link set " + h.ends[1] + " up",
	} {
		if err := run(strings.Fields(command)...); err != nil {
			h.Close()
			return nil, err
		}
	}
	return h, nil
}

// Run runs a command on the host.
func (h *Host) Run(command ...string) error {
	return run(append([]string{"ip", "netns", "exec", h.name}, command...)...)
}

// Delay makes the cable long, with the kernel's netem.
func (h *Host) Delay(roundTrip time.Duration) error {
	delay := []string{"root", "netem", "delay", fmt.Sprintf("%dus", (roundTrip / 2).Microseconds()), "limit", "1000000"}
	if err := run(append([]string{"tc", "qdisc", "replace", "dev", h.ends[0]}, delay...)...); err != nil {
		return err
	}
	return h.Run(append([]string{"tc", "qdisc", "replace", "dev", h.ends[1]}, delay...)...)
}

// Close takes the host away, with its end of the cable, and so with ours.
func (h *Host) Close() {
	_ = run("ip", "link", "del", h.ends[0]) // it may not have come to that
	_ = run("ip", "netns", "del", h.name)
}

// Listen opens a listener on the host: a socket belongs to the namespace in which it was made.
func (h *Host) Listen() (net.Listener, error) {
	type opened struct {
		net.Listener
		error
	}
	result := make(chan opened)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		file, err := os.Open("/run/netns/" + h.name)
		if err == nil {
			defer file.Close()
			err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			result <- opened{nil, err}
			return
		}
		l, err := net.Listen("tcp", peerSide+":0")
		result <- opened{l, err}
	}()
	r := <-result
	return r.Listener, r.error
}

func run(command ...string) error {
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
	}
	return nil
}
