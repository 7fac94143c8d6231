package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// A stream is made of events like these, each with the name of its request, its number, when it was sent, and a text that
// both ends know. The last says how many there were.
//
//	event: delta
//	data: stream-17-2 5 1760000000000000000 aGVsbG8
//
//	event: stop
//	data: stream-17-2 6

func (b *ledger) appendEvent(to []byte, p plan, n int) []byte {
	to = fmt.Appendf(to, "event: delta\ndata: %s %d %d ", p.name, n, time.Now().UnixNano())
	to = append(to, b.eventText(p, n)...)
	return append(to, "\n\n"...)
}

func appendStop(to []byte, p plan, events int) []byte {
	return fmt.Appendf(to, "event: stop\ndata: %s %d\n\n", p.name, events)
}

// errWrongEvent means that what came is not what was sent.
var errWrongEvent = errors.New("not what was sent")

// eventReader reads a stream and compares it with its plan, byte by byte.
type eventReader struct {
	book    *ledger
	plan    plan
	lines   *bufio.Reader
	events  int  // read so far
	stopped bool // the last event has been read
}

// next reads one event and returns how long it was on its way. It returns io.EOF only after the last.
func (r *eventReader) next() (time.Duration, error) {
	first, err := r.lines.ReadBytes('\n')
	if err != nil {
		if err == io.EOF && (!r.stopped || len(first) > 0) {
			return 0, fmt.Errorf("a clean end after %d events, without the last: %w", r.events, errWrongEvent)
		}
		return 0, err
	}
	second, err := r.lines.ReadBytes('\n')
	if err == nil {
		var blank byte
		if blank, err = r.lines.ReadByte(); err == nil && blank != '\n' {
			err = r.wrong(second)
		}
	}
	switch {
	case err == io.EOF:
		return 0, fmt.Errorf("a clean end within event %d: %w", r.events, errWrongEvent)
	case err != nil:
		return 0, err
	case r.stopped:
		return 0, r.wrong(second)
	case string(first) == "event: stop\n":
		if want := appendStop(nil, r.plan, r.events); string(want) != string(first)+string(second)+"\n" {
			return 0, r.wrong(second)
		}
		r.stopped = true
		return 0, nil
	case string(first) != "event: delta\n":
		return 0, r.wrong(first)
	}
	return r.delta(second)
}

func (r *eventReader) delta(line []byte) (time.Duration, error) {
	rest, found := bytes.CutPrefix(line, fmt.Appendf(nil, "data: %s %d ", r.plan.name, r.events))
	sent, text, more := bytes.Cut(rest, []byte(" "))
	nanos, err := strconv.ParseInt(string(sent), 10, 64)
	if !found || !more || err != nil || !bytes.Equal(bytes.TrimSuffix(text, []byte("\n")), r.book.eventText(r.plan, r.events)) {
		return 0, r.wrong(line)
	}
	r.events++
	return time.Since(time.Unix(0, nanos)), nil
}

func (r *eventReader) wrong(line []byte) error {
	return fmt.Errorf("event %d is %.200q: %w", r.events, line, errWrongEvent)
}

// answer is the text of an answer that is no stream. It tells what arrived, by length and checksum.
func answer(p plan, size int64, sum uint32) string {
	return fmt.Sprintf(`{"name":%q,"status":%d,"bytes":%d,"crc32c":"%08x"}`+"\n", p.name, p.status, size, sum)
}
