// Package hostile loads the proxy with everything that uses memory, under the deployed configuration and limits. It counts memory as
// cgroup v2 does, with the kernel's socket buffers. Client and upstream use the kernel's default buffers. The kernel must not kill the
// process, and no upload may be refused.
package hostile

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/pod"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

func TestMain(m *testing.M) { os.Exit(binary.Main(m)) }

// load is what the proxy has to handle at once.
type load struct {
	name                   string
	unread, idle           int // clients that do not read endless answers, and idle streams
	uploads, answers       int // uploads of the largest size, and idle streams after one
	heads, silent, scrapes int // connections with an unfinished head, without any bytes, and with unread answers of /metrics
}

var loads = []load{
	{name: "clients that do not read", unread: 200},
	{name: "uploads", uploads: 64},
	{name: "long answers to uploads", answers: 32},
	{name: "idle streams and uploads", idle: 900, uploads: 64},
	{name: "everything at once", unread: 200, idle: 300, uploads: 64},
	{name: "unfinished heads and silent connections", heads: 2000, silent: 2000},
	{name: "scrapes that nobody reads", scrapes: 500},
}

func TestMemoryUnderHostility(t *testing.T) {
	for _, l := range loads {
		t.Run(l.name, func(t *testing.T) { l.test(t) })
	}
}

func (l load) test(t *testing.T) {
	deployed, err := pod.Read(nil)
	assert.NilError(t, err)
	group, err := binary.NewCgroup(deployed.Memory)
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	assert.NilError(t, err)
	t.Cleanup(group.Remove)
	// HTTP/2, like the API: a stream's window limits what an endless answer keeps in memory.
	up, err := standin.Start(standin.Options{Streams: 2000})
	assert.NilError(t, err)
	t.Cleanup(func() { up.Close() })
	proxy := binary.Start(t, binary.Config{Upstream: up.URL, CAFile: up.CAFile, Text: deployed.Config, Env: deployed.Env, Under: group.Under()})
	watched := group.Watch()
	c := client.New(proxy.URL)
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)

	together(t, "clients that do not read", l.unread, func(int) error {
		return open(ctx, c, standin.Part{Events: 1 << 30, Text: 16 << 10}, []byte("{}"))
	})
	together(t, "idle streams", l.idle, func(int) error { return open(ctx, c, standin.Part{Events: 1, End: standin.Hold}, []byte("{}")) })
	head := "GET / HTTP/1.1\r\nHost: p\r\n" + strings.Repeat("X: "+strings.Repeat("x", 230)+"\r\n", 120)
	l.dial(t, proxy.URL, l.heads, head)
	l.dial(t, proxy.URL, l.silent, "")
	l.dial(t, proxy.URL, l.scrapes, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: p\r\n\r\n", 100))
	lastUsed := int64(0)
	poll.WaitOn(t, func(poll.LogT) poll.Result { // until every buffer on the way is full
		used, _ := group.Used()
		grown := used - lastUsed
		lastUsed = used
		if grown > 1<<20 || used < int64(l.unread)*512<<10 { // each fills a window
			return poll.Continue("memory is %d MiB and grew by %d", used>>20, grown>>20)
		}
		return poll.Success()
	}, poll.WithDelay(time.Second), poll.WithTimeout(time.Minute))
	body := make([]byte, deployed.MaxBodyBytes)
	together(t, "long answers", l.answers, func(int) error { return open(ctx, c, standin.Part{Events: 1, End: standin.Hold}, body) })
	together(t, "uploads", l.uploads, func(int) error { return c.Ask(ctx, standin.Part{Rate: 160 << 20}, body) })

	total, sockets := watched()
	t.Logf("peak %d MiB, of which at most %d MiB of socket buffers; limit %s", total>>20, sockets>>20, group)
	assert.Equal(t, group.Kills(), int64(0), "processes that the kernel killed for lack of memory")
	assert.Assert(t, total <= deployed.Memory*85/100, "the peak of %d MiB is more than 85 %% of %s", total>>20, group)
	poll.WaitOn(t, func(poll.LogT) poll.Result { // a new connection counts as idle after a second
		resp, err := c.Do(ctx, "GET", "/health", nil, 0)
		if err != nil {
			return poll.Continue("/health: %v", err)
		}
		resp.Body.Close()
		return poll.Compare(cmp.Equal(resp.StatusCode, 200))
	}, poll.WithTimeout(time.Minute))
}

// open opens a stream, reads its first event and then nothing more.
func open(ctx context.Context, c *client.Client, p standin.Part, body []byte) error {
	stream, err := c.Open(ctx, p, body)
	if err == nil {
		_, _, err = stream.Next()
	}
	return err
}

// dial opens n connections that send text and then neither read nor close. The proxy may close some, because it limits connections.
func (l load) dial(t *testing.T, url string, n int, text string) {
	t.Helper()
	for range n {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		assert.NilError(t, err)
		t.Cleanup(func() { conn.Close() })
		conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		io.WriteString(conn, text)
	}
}

// together calls a function n times at once. All calls must succeed.
func together(t *testing.T, what string, n int, do func(i int) error) {
	t.Helper()
	var group errgroup.Group
	for i := range n {
		group.Go(func() error {
			if err := do(i); err != nil {
				return fmt.Errorf("call %d: %w", i, err)
			}
			return nil
		})
	}
	assert.NilError(t, group.Wait(), what)
}
