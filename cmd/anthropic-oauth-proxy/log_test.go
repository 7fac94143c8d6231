package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Contract section 8: net/http tells the global logger of bytes that answer no request, and quotes them. In the program's log they are
// missing, and it stays JSON lines. internal/proxy's TestNothingSecret and FuzzWire look for all other secrets.
func TestAnswerToNoRequest(t *testing.T) {
	t.Parallel()
	p := startEnv(t, []string{"LOG_LEVEL=debug"}, newUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		assert.Check(t, err)
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nsecret answer to no request")
		conn.Close()
	}))
	get(t, p.url("/plain?secret"))
	p.logged("what net/http says", func(e entry) bool { return e["msg"] == "Unsolicited response received on idle HTTP channel" })
	for line := range strings.Lines(p.stderr.text()) {
		assert.Check(t, strings.HasPrefix(line, "{") && !strings.Contains(line, "secret"), line)
	}
}
