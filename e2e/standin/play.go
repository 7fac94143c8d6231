package standin

import (
	"context"
	"hash/crc32"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// play answers a request for PartPath.
func (s *Server) play(w http.ResponseWriter, r *http.Request) {
	p, err := parsePart(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	once := slices.DeleteFunc(betaFlags(r.Header), func(flag string) bool { return flag != OAuthFlag })
	if len(once) != 1 {
		http.Error(w, "the beta flag "+OAuthFlag+" must be present exactly once", http.StatusUnauthorized)
		return
	}
	attempt := s.arrive(r.Method, p.Name)
	defer s.depart(p.Name)
	w.Header().Set("Request-Id", "play-"+p.Name)
	var size int64
	sum := crc32.New(castagnoli)
	if !p.Early {
		if size, err = io.Copy(sum, s.paced(r.Body, p.Rate)); err != nil {
			panic(http.ErrAbortHandler) // the client left, or the connection broke
		}
	}
	if attempt <= p.Stalls {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	if !sleep(r.Context(), nil, p.Delay) {
		return
	}
	if s.hangups.Load() > 0 && s.hangups.Add(-1) >= 0 {
		w.Header().Set("Connection", "close") // over HTTP/2, net/http makes this a GOAWAY
	}
	if p.Events > 0 || p.Paced {
		s.playStream(w, r, p)
		return
	}
	if !s.end(r.Context(), p) {
		return
	}
	text := []byte(Receipt(size, sum.Sum32()))
	length := p.Size
	if length == 0 {
		length = int64(len(text))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	if p.Status >= 400 {
		w.Header().Set("Retry-After", "7")
	}
	w.WriteHeader(max(p.Status, http.StatusOK))
	for sent := int64(0); sent < length && r.Method != http.MethodHead; {
		if p.Size > 0 {
			text = Content(sent)
		}
		n, err := w.Write(text[:min(int64(len(text)), length-sent)])
		if err != nil {
			return
		}
		sent += int64(n)
	}
}

// sending is a stream whose events Tick sends.
type sending struct {
	tick chan struct{}
	sent int // guarded by Server.mu
}

func (s *Server) playStream(w http.ResponseWriter, r *http.Request, p Part) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	flush := http.NewResponseController(w).Flush
	var event []byte
	n := 0
	send := func() bool {
		event = AppendEvent(event[:0], n, Now(), p.Text)
		if _, err := w.Write(event); err != nil || flush() != nil {
			return false
		}
		n++
		return true
	}
	if p.Paced {
		s.playPaced(r.Context(), send)
		return
	}
	for n < p.Events {
		if n > 0 && !sleep(r.Context(), nil, p.Every) || !send() {
			return
		}
	}
	for p.End == Hold && p.Every > 0 {
		if released := s.held(); !sleep(r.Context(), released, p.Every) {
			break
		}
		if !send() {
			return
		}
	}
	if (p.End != Hold || p.Every == 0) && !s.end(r.Context(), p) || r.Context().Err() != nil {
		return
	}
	_, _ = w.Write(AppendLast(event[:0], n)) // a client that left does not need it
}

func (s *Server) playPaced(ctx context.Context, send func() bool) {
	st := &sending{tick: make(chan struct{}, 64)}
	s.mu.Lock()
	s.streams = append(s.streams, st)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.streams = slices.DeleteFunc(s.streams, func(other *sending) bool { return other == st })
	}()
	for send() {
		s.mu.Lock()
		st.sent++
		s.mu.Unlock()
		select {
		case <-st.tick:
		case <-ctx.Done():
			return
		}
	}
}

// end does what p.End says. It returns whether the answer may end properly afterwards.
func (s *Server) end(ctx context.Context, p Part) bool {
	switch p.End {
	case Cut:
		panic(http.ErrAbortHandler)
	case Hang:
		<-ctx.Done()
		panic(http.ErrAbortHandler)
	case Hold:
		select {
		case <-s.held():
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// sleep waits for d. It returns false if a release or ctx ends the wait before.
func sleep(ctx context.Context, released <-chan struct{}, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-released:
	case <-ctx.Done():
	}
	return false
}

// paced returns a reader of body that is no faster than rate bytes a second, shared by all such bodies.
func (s *Server) paced(body io.Reader, rate int64) io.Reader {
	if rate <= 0 {
		return body
	}
	return readerFunc(func(b []byte) (int, error) {
		n, err := body.Read(b[:min(len(b), 64<<10)])
		s.mu.Lock()
		turn := max(s.turn, Now())
		s.turn = turn + time.Duration(n)*time.Second/time.Duration(rate)
		s.mu.Unlock()
		time.Sleep(turn - Now())
		return n, err
	})
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
