// Package hostile puts the proxy under everything that takes its memory, at once, with the limits it is deployed with: clients
// that do not read what pours at them, idle streams, and more and larger uploads than it may hold. Nothing may be refused, and
// the kernel may not have to end anything.
package hostile

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/pod"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

const (
	pourers = 200
	idlers  = 1000
	uploads = 64 // of 10 MiB
	large   = 8  // of the largest size there is
)

// The upstream speaks HTTP/2, as the API does: it is the window of a stream that keeps down what pours.
func TestMemoryUnderHostility(t *testing.T) {
	deployed, err := pod.Read(map[string]int64{"max_connections": pourers + idlers + uploads + large})
	assert.NilError(t, err)
	group, err := binary.NewCgroup(deployed.Memory)
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	assert.NilError(t, err)
	t.Cleanup(group.Remove)
	listen := net.ListenConfig{Control: small(unix.SO_SNDBUF)}
	listener, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	up, err := standin.Start(standin.Options{Listener: listener, Streams: 2 * idlers})
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, up.Close()) })
	proxy := binary.Start(t, binary.Config{Upstream: up.URL, CAFile: up.CAFile, Text: deployed.Config, Env: deployed.Env,
		Flags: []string{"--log-level", "info"}, Under: group.Under()})
	c := client.New(proxy.URL)
	c.Transport.DialContext = (&net.Dialer{Control: small(unix.SO_RCVBUF)}).DialContext
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)

	open := func(what string, n int, p standin.Part) []*client.Stream {
		t.Helper()
		streams := make([]*client.Stream, n)
		together(t, what, n, func(i int) (err error) {
			if streams[i], err = c.Open(ctx, p, []byte("{}")); err == nil {
				_, _, err = streams[i].Next()
			}
			return err
		})
		return streams
	}
	pouring := open("what pours", pourers, standin.Part{Events: 1 << 30, Text: 16 << 10})
	idling := open("idle streams", idlers, standin.Part{Events: 1, End: standin.Hold})
	body := make([]byte, deployed.MaxBodyBytes)
	together(t, "uploads", uploads+large, func(i int) error {
		size := min(10<<20, len(body))
		if i < large {
			size = len(body)
		}
		return c.Ask(ctx, standin.Part{Rate: 160 << 20}, body[:size])
	})
	rss, err := binary.Status(proxy.PID(), "VmHWM")
	assert.NilError(t, err)
	t.Logf("peak RSS %d MiB, peak counted %d MiB, limit %s", rss>>20, group.Peak()>>20, group)
	assert.Equal(t, group.Kills(), int64(0), "killed for want of memory")
	for _, s := range pouring {
		s.Close()
	}
	up.Release()
	together(t, "the end of idle streams", idlers, func(i int) error { return idling[i].Rest() })
}

// small keeps what nobody reads out of this side's buffers: hundreds of them would take all the memory that the kernel has for TCP.
func small(buffer int) func(_, _ string, conn syscall.RawConn) error {
	return func(_, _ string, conn syscall.RawConn) (err error) {
		controlErr := conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, buffer, 64<<10) })
		return errors.Join(err, controlErr)
	}
}

// together does something n times at once; all of it must succeed.
func together(t *testing.T, what string, n int, do func(i int) error) {
	t.Helper()
	var group errgroup.Group
	for i := range n {
		group.Go(func() error { return do(i) })
	}
	assert.NilError(t, group.Wait(), what)
}
