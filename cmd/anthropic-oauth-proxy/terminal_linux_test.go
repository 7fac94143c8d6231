package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// At a terminal the log is lines for people, and the first of them say what to do next; elsewhere it is JSON (contract section 8).
func TestTerminal(t *testing.T) {
	t.Parallel()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	assert.NilError(t, err)
	defer master.Close()
	assert.NilError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	assert.NilError(t, err)
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	assert.NilError(t, err)
	cmd := exec.Command(binary, "--listen", "127.0.0.1:0")
	cmd.Stderr = terminal
	p := launchCommand(t, cmd, nil)
	terminal.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.stderr.readFrom(master)
	}()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		if strings.Contains(p.stderr.text(), "Ctrl-C lets") {
			return poll.Success()
		}
		return poll.Continue("no greeting")
	}, poll.WithTimeout(patience))
	p.signal(unix.SIGTERM)
	assert.Equal(t, p.exit(), 0)
	receive(t, read, "the end of the log")
	text := p.stderr.text()
	assert.Check(t, strings.Contains(text, " level=INFO msg=stopped "), text)
	_, addr, _ := strings.Cut(text, "addr=")
	addr, _, _ = strings.Cut(addr, "\n")
	assert.Check(t, strings.Contains(text, "export ANTHROPIC_BASE_URL=http://"+strings.TrimSpace(addr)), text)
	assert.Check(t, !strings.Contains(text, "{"), text)
}
