package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// stream is one stream, as its client sees it.
type stream struct {
	*conn
	received int
}

// open opens a stream on a connection of its own and waits for the first event.
func open(t target) (*stream, error) {
	c, err := dial(t)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: c}
	if err = c.send(t.request("/stream", requestBody)); err == nil && !c.chunked {
		err = errors.New("a stream of known length")
	}
	if err == nil {
		_, err = s.next()
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return s, c.SetReadDeadline(time.Time{})
}

// next reads one event, and returns when it was sent.
func (s *stream) next() (time.Duration, error) {
	var buf [eventSize]byte
	if _, err := io.ReadFull(s.conn, buf[:]); err != nil {
		return 0, err
	}
	sent, err := parseEvent(buf[:], s.received)
	s.received++
	return sent, err
}

// openers is how many clients open streams at the same time.
const openers = 8

// openStreams opens n streams.
func openStreams(t target, n int) ([]*stream, error) {
	streams := make([]*stream, n)
	errs := make(chan error, openers)
	for first := range openers {
		go func() {
			var err error
			for i := first; i < n && err == nil; i += openers {
				streams[i], err = open(t)
			}
			errs <- err
		}()
	}
	var all error
	for range openers {
		all = errors.Join(all, <-errs)
	}
	if all != nil {
		closeStreams(streams)
		return nil, fmt.Errorf("open streams: %w", all)
	}
	return streams, nil
}

func closeStreams(streams []*stream) {
	for _, s := range streams {
		if s != nil {
			s.Close()
		}
	}
}

// readers read all streams' events until closeStreams.
type readers struct {
	wg       sync.WaitGroup
	mu       sync.Mutex
	arrivals []arrival
	err      error // the first that is not the connection's end on our side
}

type arrival struct{ sent, delay time.Duration }

func readAll(streams []*stream) *readers {
	r := &readers{}
	for _, s := range streams {
		r.wg.Go(func() {
			for {
				sent, err := s.next()
				at := now()
				r.mu.Lock()
				if err != nil {
					if r.err == nil && !errors.Is(err, net.ErrClosed) {
						r.err = err
					}
					r.mu.Unlock()
					return
				}
				r.arrivals = append(r.arrivals, arrival{sent, at - sent})
				r.mu.Unlock()
			}
		})
	}
	return r
}

// count returns how many events have arrived, and what went wrong if something did.
func (r *readers) count() (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.arrivals), r.err
}
