package delivery

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// A network is a network namespace that has only a loopback interface. Like a pod's, it is separate: every port is free, including
// 443 and 8080, and nothing can leave the machine. It needs root.
type network struct {
	path  string // runc joins it
	calls chan func()
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		// The thread is never unlocked, so it ends with this goroutine. The namespace ends with its last user.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = loopbackUp()
		}
		n.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- err
		for call := range n.calls {
			call()
		}
	}()
	t.Cleanup(func() { close(n.calls) })
	if err := <-ready; err != nil {
		unavailable(t, "no network namespace can be made here: %v", err)
	}
	return n
}

func loopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// run calls f on the thread inside the namespace. A socket belongs to the namespace in which it was made, wherever it is used later.
func (n *network) run(f func()) {
	done := make(chan struct{})
	n.calls <- func() { defer close(done); f() }
	<-done
}

func (n *network) listen(t *testing.T, address string) (listener net.Listener) {
	t.Helper()
	var err error
	n.run(func() { listener, err = net.Listen("tcp", address) })
	assert.NilError(t, err)
	return listener
}

// client returns an HTTP client inside the namespace. Addresses must be literal, because another thread outside would look up a
// name. Each request has its own connection, because a drain waits for connections that a client might use again.
func (n *network) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			n.run(func() { conn, err = new(net.Dialer).DialContext(ctx, network, address) })
			return conn, err
		},
	}}
}
