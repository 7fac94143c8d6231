package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// Stream is the client's side of one stream of a Part.
type Stream struct {
	Events int // read so far

	body  io.ReadCloser
	lines *bufio.Reader
	text  int
	buf   []byte
	spare []byte
	over  bool
}

// Open requests a Part that is a stream. The answer must have the status 200 and be an event stream.
func (c *Client) Open(ctx context.Context, p standin.Part, body []byte) (*Stream, error) {
	res, err := c.Post(ctx, p, body)
	if err != nil {
		return nil, err
	}
	return NewStream(res, p)
}

// NewStream returns the stream of an answer whose headers have arrived.
func NewStream(res *http.Response, p standin.Part) (*Stream, error) {
	if err := Refused(res); err != nil {
		return nil, err
	}
	if got := res.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		res.Body.Close()
		return nil, fmt.Errorf("%w: not a stream, but %q", ErrWrongBytes, got)
	}
	return &Stream{body: res.Body, lines: bufio.NewReaderSize(res.Body, 2048), text: p.Text}, nil
}

// Next reads the next event. It returns when the event was sent and how long it took to arrive. It returns io.EOF only after the
// last event and a clean end.
func (s *Stream) Next() (sent, delay time.Duration, err error) {
	event, err := s.read()
	if err != nil {
		return 0, 0, err
	}
	if s.over {
		return 0, 0, fmt.Errorf("%w: after the last event %.200q", ErrWrongBytes, event)
	}
	if bytes.HasPrefix(event, []byte("event: message_stop\n")) {
		if s.spare = standin.AppendLast(s.spare[:0], s.Events); !bytes.Equal(event, s.spare) {
			return 0, 0, fmt.Errorf("%w: %.200q after %d events", ErrWrongBytes, event, s.Events)
		}
		s.over = true
		return s.Next()
	}
	s.spare = append(s.spare[:0], event...) // grown once
	if sent, err = standin.ParseEvent(event, s.Events, s.text, s.spare); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrWrongBytes, err)
	}
	s.Events++
	return sent, standin.Now() - sent, nil
}

// read reads the bytes of one event, including the empty line at its end.
func (s *Stream) read() ([]byte, error) {
	s.buf = s.buf[:0]
	for {
		line, err := s.lines.ReadSlice('\n')
		s.buf = append(s.buf, line...)
		switch {
		case err == nil && len(line) == 1 && (len(s.buf) == 1 || bytes.HasSuffix(s.buf, []byte("\n\n"))):
			return s.buf, nil
		case err == io.EOF && s.over && len(s.buf) == 0:
			return nil, io.EOF
		case err == io.EOF:
			return nil, fmt.Errorf("%w: a clean end after %d events, without the last", ErrWrongBytes, s.Events)
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// Rest reads up to the end, which must be clean.
func (s *Stream) Rest() error {
	for {
		if _, _, err := s.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Close closes the answer. Before its end, that closes the connection too.
func (s *Stream) Close() { s.body.Close() }
