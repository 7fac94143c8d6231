package proxy_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http/httptest"
	"testing"

	"gotest.tools/v3/assert"
)

// The few frames and codes of RFC 9113 that the tests need.
const (
	frameData      = 0x0
	frameHeaders   = 0x1
	frameRSTStream = 0x3
	frameSettings  = 0x4
	framePing      = 0x6
	frameGoAway    = 0x7

	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4

	codeNo       = 0x0
	codeProtocol = 0x1
	codeInternal = 0x2
	codeRefused  = 0x7
)

// h2request is a request at an HTTP/2 upstream that speaks in frames.
type h2request struct {
	conn   net.Conn
	nth    int // of all requests, from 1
	stream uint32
	body   string
}

// frame writes one frame.
func (r *h2request) frame(kind, flags byte, stream uint32, payload ...byte) {
	writeFrame(r.conn, kind, flags, stream, payload)
}

func (r *h2request) ok() {
	r.frame(frameHeaders, flagEndHeaders|flagEndStream, r.stream, 0x88) // :status 200, from HPACK's static table
}

func (r *h2request) reset(code uint32) {
	r.frame(frameRSTStream, 0, r.stream, binary.BigEndian.AppendUint32(nil, code)...)
}

func (r *h2request) goAway(last, code uint32) {
	r.frame(frameGoAway, 0, 0, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, last), code)...)
}

func writeFrame(w io.Writer, kind, flags byte, stream uint32, payload []byte) {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	head = append(head, flags)
	head = binary.BigEndian.AppendUint32(head, stream)
	w.Write(append(head, payload...))
}

func readFrame(in *bufio.Reader) (kind, flags byte, stream uint32, payload []byte, err error) {
	var head [9]byte
	if _, err = io.ReadFull(in, head[:]); err != nil {
		return
	}
	payload = make([]byte, binary.BigEndian.Uint32(head[:4])>>8)
	_, err = io.ReadFull(in, payload)
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]), payload, err
}

// listenTLS listens for TLS with a certificate that the proxy trusts.
func listenTLS(t *testing.T, protocols ...string) net.Listener {
	t.Helper()
	certified := httptest.NewTLSServer(nil)
	config := &tls.Config{Certificates: certified.TLS.Certificates, NextProtos: protocols}
	certified.Close()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
	assert.NilError(t, err)
	return listener
}

// serveH2 runs an upstream of TLS whose connections, once HTTP/2's preface has come, are handle's. It sends nothing by itself.
func serveH2(t *testing.T, handle func(conn net.Conn, in *bufio.Reader)) string {
	t.Helper()
	listener := listenTLS(t, "h2")
	acceptRaw(t, listener, func(conn net.Conn, in *bufio.Reader, _ int) {
		if _, err := in.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err == nil {
			handle(conn, in)
		}
	})
	return "https://" + listener.Addr().String()
}

// serveFrames runs an HTTP/2 upstream that hands every complete request to answer, which returns whether the connection
// stays open. Bodies must fit into the initial window, 64 KiB.
func serveFrames(t *testing.T, answer func(r *h2request) bool) string {
	t.Helper()
	requests := make(chan int, 1)
	requests <- 0
	return serveH2(t, func(conn net.Conn, in *bufio.Reader) {
		writeFrame(conn, frameSettings, 0, 0, nil)
		bodies := map[uint32]string{}
		for {
			kind, flags, stream, payload, err := readFrame(in)
			if err != nil {
				return
			}
			switch {
			case (kind == frameSettings || kind == framePing) && flags&flagAck == 0:
				if kind == frameSettings {
					payload = nil
				}
				writeFrame(conn, kind, flagAck, 0, payload)
			case kind == frameData:
				bodies[stream] += string(payload)
			}
			if (kind == frameData || kind == frameHeaders) && flags&flagEndStream != 0 {
				nth := <-requests + 1
				requests <- nth
				if !answer(&h2request{conn, nth, stream, bodies[stream]}) {
					return
				}
			}
		}
	})
}
