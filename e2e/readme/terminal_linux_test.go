package readme

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"
)

// On a terminal the log is text for people, and its first lines say what to do next (contract section 8).
func TestTerminal(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	assert.NilError(t, err)
	defer master.Close()
	assert.NilError(t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	assert.NilError(t, err)
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	assert.NilError(t, err)
	program := t.TempDir() + "/proxy"
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, "./cmd/anthropic-oauth-proxy")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	cmd := exec.Command(program, "--listen", "127.0.0.1:0")
	cmd.Stderr = terminal
	assert.NilError(t, cmd.Start())
	terminal.Close()
	var text string
	for lines := bufio.NewScanner(master); lines.Scan(); { // until the program has ended, which the terminal reports as an error
		text += lines.Text() + "\n"
		if strings.Contains(lines.Text(), "Ctrl-C") {
			assert.NilError(t, cmd.Process.Signal(syscall.SIGTERM))
		}
	}
	assert.NilError(t, cmd.Wait())
	_, addr, _ := strings.Cut(text, "addr=")
	addr, _, _ = strings.Cut(addr, "\n")
	assert.Assert(t, strings.Contains(text, "export ANTHROPIC_BASE_URL=http://"+strings.TrimSpace(addr)), text)
	assert.Assert(t, strings.Contains(text, " level=INFO msg=stopped "), text)
	assert.Assert(t, !strings.Contains(text, "{"), text)
}
