package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

var requestBody = bytes.Repeat([]byte(`{"role":"user","content":"hello"}`), 64)[:2048]

// uploadBody is made when it is asked for: a naive proxy, which is this program too, should not pay for it.
var uploadBody = sync.OnceValue(func() []byte { return bytes.Repeat([]byte("0123456789abcdef"), 10<<20/16) })

// request returns a request as Claude Code sends it.
func request(path string, body []byte, flags string) []byte {
	return append(fmt.Appendf(nil, "POST %s HTTP/1.1\r\n"+
		"Host: 127.0.0.1\r\n"+
		"Accept: application/json\r\n"+
		"Accept-Encoding: gzip, deflate, br\r\n"+
		"Anthropic-Beta: %s\r\n"+
		"Anthropic-Dangerous-Direct-Browser-Access: true\r\n"+
		"Anthropic-Version: 2023-06-01\r\n"+
		"Authorization: Bearer sk-ant-oat01-%s\r\n"+
		"Content-Type: application/json\r\n"+
		"User-Agent: claude-cli/2.1.0 (external, cli)\r\n"+
		"X-App: cli\r\n"+
		"X-Stainless-Lang: js\r\n"+
		"X-Stainless-Package-Version: 0.70.0\r\n"+
		"X-Stainless-Runtime: node\r\n"+
		"Content-Length: %d\r\n\r\n", path, flags, strings.Repeat("x", 80), len(body)), body...)
}

const clientFlags = "claude-code-20250219,interleaved-thinking-2025-05-14"

// conn is a client's connection. It speaks just enough HTTP/1.1 to keep the rig cheap, and refuses everything else.
type conn struct {
	net.Conn
	r *bufio.Reader
	// chunked says that the body of the last response is; if not, it has length bytes.
	chunked bool
	length  int
	// chunk is what is left of the current chunk.
	chunk int
	ended bool
}

// patience is for how long a client waits for anything, before it gives the measurement up.
const patience = 30 * time.Second

func dial(t target) (*conn, error) {
	c, err := net.DialTimeout("tcp", t.addr, patience)
	if err != nil {
		return nil, err
	}
	if t.tls != nil {
		c = tls.Client(c, t.tls)
	}
	return &conn{Conn: c, r: bufio.NewReaderSize(c, 2048)}, nil
}

// send sends a request and reads the response's head.
func (c *conn) send(request []byte) error {
	c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Write(request); err != nil {
		return err
	}
	return c.readHead()
}

func (c *conn) readHead() error {
	line, err := c.line()
	if err != nil {
		return err
	}
	status := string(line)
	c.chunked, c.length, c.chunk, c.ended = false, -1, 0, false
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			if c.length, err = strconv.Atoi(string(value)); err != nil {
				return err
			}
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			c.chunked = bytes.EqualFold(value, []byte("chunked"))
		}
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		text := make([]byte, min(max(c.length, 0), 1000))
		io.ReadFull(c.r, text)
		return fmt.Errorf("answered %q: %s", status, text)
	}
	if c.chunked == (c.length >= 0) {
		return errors.New("the body is not either chunked or of a known length")
	}
	return nil
}

// line reads a line and drops its end. It is valid until the next read.
func (c *conn) line() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, fmt.Errorf("in the response: %w", err)
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// Read reads from a chunked body; io.EOF is its proper end.
func (c *conn) Read(p []byte) (int, error) {
	if c.ended {
		return 0, io.EOF
	}
	if c.chunk == 0 {
		line, err := c.line()
		if err != nil {
			return 0, err
		}
		size, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return 0, fmt.Errorf("chunk size: %w", err)
		}
		if size == 0 {
			if line, err = c.line(); err == nil && len(line) > 0 {
				err = fmt.Errorf("trailer %q", line)
			}
			c.ended = err == nil
			if err != nil {
				return 0, err
			}
			return 0, io.EOF
		}
		c.chunk = int(size)
	}
	n, err := c.r.Read(p[:min(len(p), c.chunk)])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	if c.chunk -= n; c.chunk > 0 || err != nil {
		return n, err
	}
	if line, err := c.line(); err != nil || len(line) > 0 {
		return n, fmt.Errorf("after a chunk: %q, %v", line, err)
	}
	return n, nil
}

// ask sends a request and reads the answer.
func (c *conn) ask(request []byte) error {
	if err := c.send(request); err != nil {
		return err
	}
	return c.readAnswer()
}

// readAnswer reads the body of a response, and sees that it is smallAnswer.
func (c *conn) readAnswer() error {
	var got []byte
	var err error
	if c.chunked {
		got, err = io.ReadAll(c)
	} else {
		got = make([]byte, c.length)
		_, err = io.ReadFull(c.r, got)
	}
	if err == nil && !bytes.Equal(got, smallAnswer) {
		err = fmt.Errorf("not the answer that was sent: %q", got)
	}
	return err
}
