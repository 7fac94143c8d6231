package standin

import (
	"bytes"
	"fmt"
	"strconv"
	"time"
)

// An event of a Part's stream has the shape of Claude's events. It contains its number, the time it was sent, and as much text as the
// Part wants. So a reader can check every byte and measure how long the event took.
const (
	eventHead   = "event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"`
	eventTail   = "\"}}\n\n"
	numberWidth = 10
	timeWidth   = 19
	timeAt      = len(eventHead) + numberWidth + 1
	filler      = " tell me more"
)

var epoch = time.Now()

// Now is the time in events, in nanoseconds. It never goes backwards within a process, and is nearly the same in all processes.
func Now() time.Duration { return time.Duration(epoch.UnixNano()) + time.Since(epoch) }

// AppendEvent appends a stream's nth event, counted from 0.
func AppendEvent(b []byte, n int, sent time.Duration, text int) []byte {
	b = append(b, eventHead...)
	b = appendPadded(b, int64(n), numberWidth)
	b = append(b, ' ')
	b = appendPadded(b, int64(sent), timeWidth)
	for ; text > 0; text -= len(filler) {
		b = append(b, filler[:min(text, len(filler))]...)
	}
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

// ParseEvent checks that b is exactly the nth event of a stream, and returns when it was sent. spare is a buffer for its use.
func ParseEvent(b []byte, n, text int, spare []byte) (time.Duration, error) {
	if len(b) >= timeAt+timeWidth {
		sent, err := strconv.ParseInt(string(b[timeAt:timeAt+timeWidth]), 10, 64)
		if err == nil && bytes.Equal(b, AppendEvent(spare[:0], n, time.Duration(sent), text)) {
			return time.Duration(sent), nil
		}
	}
	return 0, fmt.Errorf("not event %d: %.200q", n, b)
}

// AppendLast appends the event that ends a stream of n events.
func AppendLast(b []byte, n int) []byte {
	return fmt.Appendf(b, "event: message_stop\ndata: {\"type\":\"message_stop\",\"events\":%d}\n\n", n)
}
