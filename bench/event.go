package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// An event has the length and the shape of what Claude streams, a number and the time it was sent at.
const (
	eventHead = "event: content_block_delta\n" +
		`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"`
	eventTail   = ` tell me more"}}` + "\n\n"
	numberWidth = 10
	timeWidth   = 19
	eventSize   = len(eventHead) + numberWidth + 1 + timeWidth + len(eventTail)
)

// epoch is when times in events begin; sender and receiver are one process.
var epoch = time.Now()

func now() time.Duration { return time.Since(epoch) }

// appendEvent appends the stream's nth event.
func appendEvent(b []byte, n int, sent time.Duration) []byte {
	b = append(b, eventHead...)
	b = appendPadded(b, int64(n), numberWidth)
	b = append(b, ' ')
	b = appendPadded(b, int64(sent), timeWidth)
	return append(b, eventTail...)
}

func appendPadded(b []byte, n int64, width int) []byte {
	var digits [20]byte
	text := strconv.AppendInt(digits[:0], n, 10)
	for range width - len(text) {
		b = append(b, '0')
	}
	return append(b, text...)
}

// parseEvent checks that b is the stream's nth event, to the byte, and returns when it was sent.
func parseEvent(b []byte, n int) (time.Duration, error) {
	var want [eventSize]byte
	const timeAt = len(eventHead) + numberWidth + 1
	if len(b) == eventSize {
		sent, err := strconv.ParseInt(string(b[timeAt:timeAt+timeWidth]), 10, 64)
		if err == nil && bytes.Equal(b, appendEvent(want[:0], n, time.Duration(sent))) {
			return time.Duration(sent), nil
		}
	}
	return 0, fmt.Errorf("not event %d: %q", n, b)
}
