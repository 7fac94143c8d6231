package faults

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// resolver is a name server on loopback. The process asks it because it sees another /etc/resolv.conf than everybody else.
type resolver struct {
	socket net.PacketConn
	answer func(query []byte) []byte // nil: none
	asked  chan struct{}
	done   chan struct{}
}

// newResolver needs port 53 of an address of its own, and a mount namespace for the process. It returns the command to run it in.
func newResolver(t *testing.T, address string, answer func(query []byte) []byte) (r *resolver, command []string) {
	t.Helper()
	socket, err := net.ListenPacket("udp", address+":53")
	if err != nil {
		skip(t, "no name server can be run here (root is needed)", err)
	}
	r = &resolver{socket: socket, answer: answer, asked: make(chan struct{}, 1000), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		buf := make([]byte, 2000)
		for {
			n, from, err := socket.ReadFrom(buf)
			if err != nil {
				return
			}
			select {
			case r.asked <- struct{}{}:
			default:
			}
			if reply := answer(buf[:n]); reply != nil {
				socket.WriteTo(reply, from)
			}
		}
	}()
	t.Cleanup(r.close)
	file := filepath.Join(t.TempDir(), "resolv.conf")
	assert.NilError(t, os.WriteFile(file, []byte("nameserver "+address+"\n"), 0o644))
	return r, []string{"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, file}
}

func skip(t *testing.T, why string, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s: %v", why, err)
	}
	t.Skipf("%s: %v", why, err)
}

func (r *resolver) url() string { return "http://upstream.example.:1" }
func (r *resolver) environment() []string {
	return []string{"GODEBUG=netdns=go", "PATH=" + os.Getenv("PATH")}
}

func (r *resolver) close() {
	r.socket.Close()
	<-r.done
}

// reply answers a query with a response code and, if there is an address, that address.
func reply(query []byte, code byte, address net.IP) []byte {
	answer := append([]byte{}, query...)
	binary.BigEndian.PutUint16(answer[10:], 0) // no additional section
	question := query[12:]
	end := strings.IndexByte(string(question), 0) + 5
	answer = answer[:12+end]
	answer[2], answer[3] = 0x81, 0x80|code
	isA := binary.BigEndian.Uint16(question[end-4:]) == 1
	if address != nil && isA {
		binary.BigEndian.PutUint16(answer[6:], 1)
		answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
		answer = append(answer, address.To4()...)
	}
	return answer
}

// TestResolver covers rows 2.1 and 2.6 for names: a name server that does not answer, or answers badly, is told to the client soon.
func TestResolver(t *testing.T) {
	t.Parallel()
	for i, tt := range []struct {
		name   string
		answer func(query []byte) []byte
		reason string
	}{
		{"silent", func([]byte) []byte { return nil }, "cannot resolve the upstream's name"},
		{"no such name", func(q []byte) []byte { return reply(q, 3, nil) }, "cannot resolve the upstream's name"},
		{"fails", func(q []byte) []byte { return reply(q, 2, nil) }, "cannot resolve the upstream's name"},
		{"refuses", func(q []byte) []byte { return reply(q, 5, nil) }, "cannot resolve the upstream's name"},
		{"answers nothing", func(q []byte) []byte { return reply(q, 0, nil) }, "cannot resolve the upstream's name"},
		{"answers garbage", func(q []byte) []byte { return append(q[:2:2], hush...) }, "cannot resolve the upstream's name"},
		{"knows", func(q []byte) []byte { return reply(q, 0, net.IPv4(127, 0, 0, 1)) }, "connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, command := newResolver(t, fmt.Sprint("127.77.53.", i+1), tt.answer)
			w := newWorldUnder(t, command, r, "timeout_secs = 600") // it is connecting that has an end, after 5 s
			for _, path := range []string{"/first", "/second"} {
				c := w.post(path, "{}")
				_, logged := w.ended(c, failed)
				assert.Assert(t, strings.Contains(c.body.String(), tt.reason), c.body.String())
				assert.Equal(t, logged["attempts"], 1.0)
			}
			assert.Assert(t, len(r.asked) > 0, "nobody asked")
		})
	}
}
