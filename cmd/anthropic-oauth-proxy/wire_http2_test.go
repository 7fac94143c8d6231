package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	bigendian "encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
	"gotest.tools/v3/assert"
)

const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway, frameWindow, frameContinuation = 0, 1, 3, 4, 6, 7, 8, 9
	flagEnd, flagAck, flagEndHeaders, flagPadded, flagPriority                                                 = 1, 1, 4, 8, 32
)

type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

func (f frame) appendTo(b []byte) []byte {
	b = bigendian.BigEndian.AppendUint32(b, uint32(len(f.payload))<<8|uint32(f.kind))
	b = bigendian.BigEndian.AppendUint32(append(b, f.flags), f.stream)
	return append(b, f.payload...)
}

func readFrame(r io.Reader) (f frame, err error) {
	head := make([]byte, 9)
	if _, err = io.ReadFull(r, head); err != nil {
		return f, err
	}
	length := bigendian.BigEndian.Uint32(head) >> 8
	f = frame{head[3], head[4], bigendian.BigEndian.Uint32(head[5:]), make([]byte, min(length, 16<<10))}
	if _, err = io.ReadFull(r, f.payload); err == nil && length > 16<<10 {
		f.kind = 255 // which nobody knows
	}
	return f, err
}

// serveHTTP2 reads frames. What it leaves to others is to decode header blocks.
func (u *recordingUpstream) serveHTTP2(conn closeWriter) error {
	preface := make([]byte, 24)
	if _, err := io.ReadFull(conn, preface); err != nil {
		return nil // in the handshake, or before anything was sent
	}
	if string(preface) != "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
		return fmt.Errorf("preface %q", preface)
	}
	conn.Write(frame{kind: frameSettings}.appendTo(nil))
	decoder, requests, newest := hpack.NewDecoder(4096, nil), map[uint32]*message{}, uint32(0)
	for {
		f, err := readFrame(conn)
		if err != nil {
			return nil
		}
		m := requests[f.stream]
		switch f.kind {
		case frameSettings, framePing:
			if f.flags&flagAck == 0 {
				if f.flags = flagAck; f.kind == frameSettings {
					f.payload = nil
				}
				conn.Write(f.appendTo(nil))
			}
			continue
		case frameReset:
			delete(requests, f.stream)
			continue
		case frameGoAway, frameWindow:
			continue
		case frameHeaders:
			if f.stream <= newest || f.stream%2 == 0 || f.flags&(flagPadded|flagPriority) != 0 {
				return fmt.Errorf("headers of stream %d after %d, flags %x", f.stream, newest, f.flags)
			}
			for newest = f.stream; f.flags&flagEndHeaders == 0; {
				more, err := readFrame(conn)
				if err != nil {
					return nil
				}
				if more.kind != frameContinuation || more.stream != f.stream {
					return fmt.Errorf("frame %d of stream %d between headers of stream %d", more.kind, more.stream, f.stream)
				}
				f.payload = append(f.payload, more.payload...)
				f.flags |= more.flags
			}
			fields, err := decoder.DecodeFull(f.payload)
			if err != nil {
				return err
			}
			if m, err = fromHTTP2(fields); err != nil {
				return err
			}
			requests[f.stream] = m
		case frameData:
			if m == nil || f.flags&flagPadded != 0 {
				return fmt.Errorf("data of stream %d, flags %x", f.stream, f.flags)
			}
			m.body += string(f.payload)
			if len(f.payload) > 0 {
				grant := bigendian.BigEndian.AppendUint32(nil, uint32(len(f.payload)))
				conn.Write(frame{frameWindow, 0, f.stream, grant}.appendTo(frame{frameWindow, 0, 0, grant}.appendTo(nil)))
			}
		default:
			return fmt.Errorf("frame %d", f.kind)
		}
		if f.flags&flagEnd == 0 {
			continue
		}
		delete(requests, f.stream)
		if lengths := m.values("content-length"); len(lengths) > 1 || len(lengths) == 1 && lengths[0] != strconv.Itoa(len(m.body)) {
			return fmt.Errorf("content-length %q before %d bytes", lengths, len(m.body))
		}
		a := u.arrive(arrival{message: *m})
		if conn.Write(a.http2(f.stream, m.start[0])); a.hangsUp && !a.isWhole(m.start[0]) {
			return nil
		}
	}
}

// fromHTTP2 puts a header section into the words of HTTP/1.1, if it is well-formed (RFC 9113 section 8).
func fromHTTP2(fields []hpack.HeaderField) (*message, error) {
	m, pseudo := &message{}, map[string]string{}
	for _, f := range fields {
		_, again := pseudo[f.Name]
		switch {
		case f.IsPseudo() && len(m.fields) == 0 && !again:
			pseudo[f.Name] = f.Value
		case !token.MatchString(f.Name) || f.Name != strings.ToLower(f.Name) || f.Name == "host" || !isText(f.Value) || strings.Trim(f.Value, " \t") != f.Value:
			return nil, fmt.Errorf("header %q", f)
		default:
			m.fields = append(m.fields, field{f.Name, f.Value})
		}
	}
	m.start = [3]string{pseudo[":method"], pseudo[":path"], "HTTP/1.1"}
	m.fields = append(m.fields, field{"host", pseudo[":authority"]})
	if len(pseudo) != 4 || pseudo[":scheme"] != "https" || m.start[0] == "" || m.start[1] == "" {
		return nil, fmt.Errorf("pseudo-headers %q", pseudo)
	}
	return m, nil
}

// http2 returns the frames of the answer.
func (a *answer) http2(stream uint32, method string) (b []byte) {
	var block strings.Builder
	headers := func(flags byte, fields ...string) {
		block.Reset()
		for encoder := hpack.NewEncoder(&block); len(fields) > 0; fields = fields[2:] {
			encoder.WriteField(hpack.HeaderField{Name: fields[0], Value: fields[1], Sensitive: true}) // which is never indexed
		}
		b = frame{frameHeaders, flags | flagEndHeaders, stream, []byte(block.String())}.appendTo(b)
	}
	if a.early {
		headers(0, ":status", "103", "link", "</a>")
	}
	if status := strconv.Itoa(a.status); a.status != 502 {
		fields := []string{":status", status, "x-answer", "one", "x-answer", "two"}
		if method == "HEAD" || a.body == "" {
			headers(flagEnd, fields...)
			return b
		}
		headers(0, fields...)
		for rest := a.body; rest != ""; rest = rest[min(len(rest), 16<<10):] {
			flags := byte(0)
			if !a.trailer && !a.broken && len(rest) <= 16<<10 {
				flags = flagEnd
			}
			b = frame{frameData, flags, stream, []byte(rest[:min(len(rest), 16<<10)])}.appendTo(b)
		}
		if a.trailer {
			headers(flagEnd, "x-end", "yes")
		}
	}
	if len(a.frames) > 0 {
		special := slices.Clone(a.frames)
		if special[3] == frameReset {
			bigendian.BigEndian.PutUint32(special[5:], stream)
		}
		b = append(b, special...)
	}
	return b
}

// trusted is the upstream's certificate. It is made once, since a process reads only once what it trusts.
var trusted *tls.Certificate

// certified returns the settings of an upstream that this process trusts.
func certified(f *testing.F) *tls.Config {
	if trusted == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		assert.NilError(f, err)
		template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(100 * time.Hour), IsCA: true, BasicConstraintsValid: true,
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		assert.NilError(f, err)
		file := filepath.Join(f.TempDir(), "upstream.pem")
		assert.NilError(f, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
		f.Setenv("SSL_CERT_FILE", file)
		trusted = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	return &tls.Config{Certificates: []tls.Certificate{*trusted}, NextProtos: []string{"h2"}}
}
