package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
)

// hold reads the request body into memory, so that an attempt can be repeated with identical bytes. The sum of all
// bodies is bounded: a body takes its room before its first byte is read, and waits, holding none, until there is room.
// A body of unknown length takes MaxBodyBytes and returns the rest once it is read. All room is returned when the
// response headers arrive, since no attempt can follow (contract section 1).
func (p *proxy) hold(next http.Handler) http.Handler {
	room := semaphore.NewWeighted(p.MaxBufferedBytes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := exchangeFrom(r.Context())
		if r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		if r.ContentLength > p.MaxBodyBytes {
			p.refuseBody(w, r, x, tooLarge(p.MaxBodyBytes))
			return
		}
		size := r.ContentLength
		if size < 0 {
			size = p.MaxBodyBytes
		}
		if !room.TryAcquire(size) {
			if err := p.waitForRoom(r.Context(), room, size); err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		held := newHeldBody(room, size, &p.metrics.HeldBytes)
		defer held.release()

		data, err := p.readBody(w, r, x)
		switch {
		case errors.Is(err, errGone):
			panic(http.ErrAbortHandler)
		case err != nil:
			held.release()
			p.refuseBody(w, r, x, err)
			return
		}
		held.fill(data)
		x.held = held

		r.ContentLength = int64(len(data))
		r.TransferEncoding = nil
		r.Body = http.NoBody
		if len(data) > 0 {
			r.Body, _ = held.open()
			r.GetBody = held.open
		}
		next.ServeHTTP(w, r)
	})
}

// waitForRoom waits until size bytes are free, or the client is gone.
func (p *proxy) waitForRoom(ctx context.Context, room *semaphore.Weighted, size int64) error {
	p.metrics.Queued.Add(1)
	defer p.metrics.Queued.Add(-1)
	ctx, stop := watchDeparture(ctx)
	defer stop()
	return room.Acquire(ctx, size)
}

// errGone means that the client's connection ended before its body did.
var errGone = errors.New("the client left")

// tooLarge is the limit that a body exceeds.
type tooLarge int64

func (limit tooLarge) Error() string {
	return fmt.Sprintf("request body too large: the limit is %d bytes (max_body_bytes)", limit)
}

// discardTime is how long a refused client may go on sending.
const discardTime = 5 * time.Second

// readBody reads the whole body. Its errors are errGone, and others whose text tells the client what was wrong.
func (p *proxy) readBody(w http.ResponseWriter, r *http.Request, x *exchange) (data []byte, err error) {
	src := &upload{proxy: p, exchange: x, r: r, setDeadline: http.NewResponseController(w).SetReadDeadline}
	defer func() {
		if err == nil {
			src.setDeadline(time.Time{}) // net/http goes on reading, to notice when the client leaves
		} else {
			src.setDeadline(time.Unix(1, 0)) // net/http would wait for the rest before it closes the connection
		}
	}()
	if r.ContentLength >= 0 {
		data = make([]byte, r.ContentLength)
		_, err = io.ReadFull(src, data)
	} else {
		data, err = io.ReadAll(io.LimitReader(src, p.MaxBodyBytes+1))
	}
	switch {
	case err != nil && src.stalled:
		return nil, fmt.Errorf("request body stalled: no byte for %vs (timeout_secs)", p.Timeout.Seconds())
	case err == errGone, isEnd(err):
		return nil, errGone
	case err != nil:
		return nil, errors.New("request body is malformed: its chunked encoding is broken")
	case int64(len(data)) > p.MaxBodyBytes:
		return nil, tooLarge(p.MaxBodyBytes)
	}
	return data, nil
}

// isEnd reports whether a read failed because there is nobody to read from any more, and not because of what came.
func isEnd(err error) bool {
	var opErr *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &opErr) ||
		err != nil && strings.Contains(err.Error(), "trailer") // all that net/http says of one that did not come to its end
}

// upload reads a request body as it comes, counts it, and minds the time between its bytes.
type upload struct {
	*proxy
	*exchange
	r           *http.Request
	setDeadline func(time.Time) error
	stalled     bool // the last Read ended at its deadline; net/http does not always pass the deadline's own error on
}

func (u *upload) Read(b []byte) (int, error) {
	deadline := time.Now().Add(u.Timeout) // each byte buys the next one its time
	u.setDeadline(deadline)
	if u.r.Context().Err() != nil { // a drain does not wait for uploads; it interrupts the reads that it finds waiting
		return 0, errGone
	}
	n, err := u.r.Body.Read(b)
	u.bytesIn += int64(n)
	u.metrics.BytesIn.Add(float64(n))
	u.stalled = err != nil && !time.Now().Before(deadline)
	return n, err
}

// refuseBody answers a request whose body was not read to its end, and gives up its connection. A client that is still
// sending would find the connection reset and might never see the answer (RFC 9112 section 9.6), so what it sends is
// thrown away for a while.
func (p *proxy) refuseBody(w http.ResponseWriter, r *http.Request, x *exchange, reason error) {
	w.Header().Set("Connection", "close")
	control := http.NewResponseController(w)
	control.EnableFullDuplex() // answer now, not after the rest of the body
	p.refuse(w, x, http.StatusBadRequest, reason.Error())
	if _, is := reason.(tooLarge); is {
		control.Flush()
		control.SetReadDeadline(time.Now().Add(discardTime))
		io.Copy(io.Discard, r.Body)
	}
	control.SetReadDeadline(time.Unix(1, 0)) // net/http would wait for the rest before it closes the connection
}
