package faults

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// An upstream may let an upload wait with its TCP window shut, for as long as timeout_secs: it is alive (contract row 2.5). The upload
// is sent once, and other requests pass meanwhile.
func TestH1WindowShut(t *testing.T) {
	t.Parallel()
	up := newH1Upstream(t)
	text := upload(24 << 20) // more than all the buffers in between
	open := make(chan struct{})
	up.on("/upload", func(r *h1request) {
		r.pause(open)
		if r.whole() {
			r.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	w := watch(t, up, "retries = 2")
	c := w.post("/upload", text)
	up.arrives("/upload", 1)
	probed(t, up.listener.Addr().(*net.TCPAddr).Port)
	for range 3 {
		w.ended(w.post("/small", "{}"), answered)
	}
	close(open)
	_, logged := w.ended(c, answered)
	assert.Equal(t, logged["attempts"], 1.0)
	assert.Equal(t, up.requests("/upload"), 1)
	assert.Assert(t, up.all("/upload")[0].body == text, "the upload came changed")
	w.undisturbed()
}

// probed waits until the kernel has asked at least twice whether the window of a peer on a port is still shut. It asks after 0.2 s, and
// then each time after twice as long.
func probed(t *testing.T, port int) {
	t.Helper()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		table, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			return poll.Error(err)
		}
		for line := range strings.Lines(string(table)) {
			fields := strings.Fields(line)
			if !strings.HasSuffix(fields[2], fmt.Sprintf(":%04X", port)) {
				continue
			}
			timer, when, _ := strings.Cut(fields[5], ":")
			if left, err := strconv.ParseInt(when, 16, 64); err == nil && timer == "04" && left > 50 { // hundredths of a second
				return poll.Success()
			}
		}
		return poll.Continue("the window has not been shut for long")
	}, poll.WithTimeout(patience), poll.WithDelay(20*time.Millisecond))
}
