package main

import (
	"bufio"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// Events arrive whole and in order, however a proxy cuts them into chunks and however the chunks arrive.
func TestReadChunked(t *testing.T) {
	const response = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	for _, test := range []struct{ name, chunks, want, wrong string }{
		{name: "one", chunks: "5\r\nhello\r\n0\r\n\r\n", want: "hello"},
		{name: "three", chunks: "1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n", want: "hello"},
		{name: "upper case and zeros", chunks: "00A\r\n0123456789\r\n0\r\n\r\n", want: "0123456789"},
		{name: "cut off", chunks: "5\r\nhel", want: "hel", wrong: "EOF"},
		{name: "no last chunk", chunks: "5\r\nhello\r\n", want: "hello", wrong: "in the response: EOF"},
		{name: "longer than it says", chunks: "4\r\nhello\r\n0\r\n\r\n", want: "hell", wrong: "after a chunk"},
		{name: "no size", chunks: "hello\r\n", wrong: "chunk size"},
		{name: "trailer", chunks: "0\r\nX: y\r\n\r\n", wrong: "trailer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			whole := strings.NewReader(response + test.chunks)
			byByte := iotest.OneByteReader(strings.NewReader(response + test.chunks))
			for _, r := range []io.Reader{whole, byByte} {
				c := &conn{r: bufio.NewReader(r)}
				if err := c.readHead(); err != nil || !c.chunked {
					t.Fatalf("head: chunked %v, %v", c.chunked, err)
				}
				got, err := io.ReadAll(c)
				if string(got) != test.want {
					t.Errorf("read %q, not %q", got, test.want)
				}
				if test.wrong == "" && err != nil || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
					t.Errorf("error %v, not %q", err, test.wrong)
				}
			}
		})
	}
}

func TestReadHeadRefuses(t *testing.T) {
	for _, head := range []string{
		"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n",
	} {
		c := &conn{r: bufio.NewReader(strings.NewReader(head))}
		if c.readHead() == nil {
			t.Errorf("accepted %q", head)
		}
	}
}

func TestParseEvent(t *testing.T) {
	event := appendEvent(nil, 7, 123456789)
	if sent, err := parseEvent(event, 7); err != nil || sent != 123456789 {
		t.Errorf("parsed %v, %v", sent, err)
	}
	if _, err := parseEvent(event, 8); err == nil {
		t.Error("accepted event 7 for event 8")
	}
	for i := range event {
		event[i] ^= 0x80
		if _, err := parseEvent(event, 7); err == nil {
			t.Errorf("accepted an event with byte %d changed", i)
		}
		event[i] ^= 0x80
	}
}
