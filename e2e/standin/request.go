package standin

import (
	"context"
	"fmt"
	"net/http"
)

// Request is one request as it arrived from the proxy.
type Request struct {
	Method, URI, Host, Proto string

	Header http.Header
	Body   []byte
	ID     string // the answer's request-id

	done chan struct{} // closed when the answer is over; status and gone are set before
	// gone: the client left before its answer was complete.
	gone   bool
	status int
}

// Finished waits until the answer has ended, and returns whether the client left before that.
func (r *Request) Finished(ctx context.Context) (gone bool, err error) {
	select {
	case <-r.done:
		return r.gone, nil
	case <-ctx.Done():
		return false, fmt.Errorf("the stand-in is still answering %s %s: %w", r.Method, r.URI, ctx.Err())
	}
}

// Status waits for the end of the answer and returns its status, or 0 if it had none.
func (r *Request) Status(ctx context.Context) (int, error) {
	_, err := r.Finished(ctx)
	return r.status, err
}

// Flags returns the tokens of the request's anthropic-beta lines, in order.
func (r *Request) Flags() []string { return betaFlags(r.Header) }

// Requests returns all requests so far, oldest first.
func (s *Server) Requests() []*Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Request(nil), s.requests...)
}

// Next waits for the oldest request that Next has not returned yet.
func (s *Server) Next(ctx context.Context) (*Request, error) {
	for {
		s.mu.Lock()
		changed := s.changed
		if s.next < len(s.requests) {
			s.next++
			defer s.mu.Unlock()
			return s.requests[s.next-1], nil
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no request reached the stand-in: %w", ctx.Err())
		}
	}
}

func (s *Server) record(r *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	s.wake()
}
