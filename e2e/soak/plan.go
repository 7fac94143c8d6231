package main

import (
	"fmt"
	"time"
)

// plan is one request, as both of its ends know it: what the client sends and does, and what the upstream makes of it.
type plan struct {
	name     string // by which the upstream finds its plan
	kind     string // its row in the report
	method   string
	path     string
	size     int64  // of the request body
	chunked  bool   // without a declared length
	tooLarge bool   // above max_body_bytes
	sum      uint32 // of the body, once it is known

	deed    deed
	status  int           // of an answer
	delay   time.Duration // of an answer
	events  int           // of a stream
	every   time.Duration // between them
	text    int           // bytes in each; 0 makes it a ping
	ending  ending
	retries int             // that the proxy makes if it stalls
	over    <-chan struct{} // closed when a wave is

	habit habit
	after time.Duration // until a client leaves that waits; how long one pauses; how long a slow one rests between two events
	seen  int           // events that a client reads before it leaves or pauses
}

// deed is what the upstream does with a request.
type deed string

const (
	answers    deed = "answers"
	streams    deed = "streams"
	early      deed = "answers early" // before it has read the body
	drops      deed = "drops"         // resets the stream (h2) or the connection (h1) before the headers
	stallsOnce deed = "stalls once"   // lets the first attempt time out
	stalls     deed = "stalls"        // lets all of them
)

// ending is how the upstream ends a stream.
type ending string

const (
	whole    ending = ""
	cut      ending = "cut"             // as it drops: in the middle
	silence  ending = "silence"         // goes on without a word
	together ending = "with the others" // when the wave is over, however many events that takes
)

// habit is what a client does that does not just send and read.
type habit string

const (
	polite          habit = ""
	leavesUploading habit = "leaves while uploading"
	leavesWaiting   habit = "leaves while waiting" // for the headers, or still in the queue
	leavesReading   habit = "leaves while reading"
	stallsUploading habit = "stalls while uploading"
	readsSlowly     habit = "reads slowly"
	pausesReading   habit = "pauses while reading"
)

// length is how long the upstream and the client take of their own accord.
func (p plan) length() time.Duration {
	length := p.delay + time.Duration(p.events)*p.every + p.after
	if p.habit == readsSlowly {
		length += time.Duration(p.events) * p.after
	}
	return length
}

func (p plan) String() string {
	text := fmt.Sprintf("%s (%s): %s %s", p.name, p.kind, p.method, p.path)
	if p.size > 0 {
		text += fmt.Sprintf(", %d bytes", p.size)
		if p.chunked {
			text += " chunked"
		}
	}
	text += fmt.Sprintf("; the upstream %s", p.deed)
	switch {
	case p.deed == streams:
		text += fmt.Sprintf(" %d events of %d bytes every %v, ends: %q", p.events, p.text, p.every.Round(time.Millisecond), p.ending)
	case p.delay > 0:
		text += fmt.Sprintf(" %d after %v", p.status, p.delay.Round(time.Millisecond))
	default:
		text += fmt.Sprintf(" %d", p.status)
	}
	if p.habit != polite {
		text += fmt.Sprintf("; the client %s (after %v or %d events)", p.habit, p.after.Round(time.Millisecond), p.seen)
	}
	return text
}
