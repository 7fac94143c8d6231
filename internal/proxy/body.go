package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// body reads the request body into memory, within the budget of all bodies, so that an attempt can be repeated with identical
// bytes. It releases the bytes when the response headers arrive, since no attempt can follow (contract section 1).
func (p *proxy) body(next http.Handler) http.Handler {
	budget := newBudget(p.MaxBufferedBytes, p.MaxBodyBytes, p.metrics)
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
		u := &upload{proxy: p, exchange: x, r: r, control: http.NewResponseController(w)}
		defer u.body.release()
		var refused *refusal
		switch err := u.receive(budget); {
		case errors.As(err, &refused):
			u.body.release()
			p.refuseBody(w, r, x, refused)
			return
		case err != nil:
			u.control.SetReadDeadline(past)
			abort()
		}
		u.control.SetReadDeadline(time.Time{}) // net/http goes on reading, to notice when the client leaves
		x.body = &u.body
		r.ContentLength = u.bytesIn
		r.TransferEncoding = nil
		r.Body = http.NoBody // each attempt opens its own: a reader that stayed here unread would keep the bytes as long as the answer takes
		if r.ContentLength > 0 {
			r.GetBody = u.body.open
		}
		next.ServeHTTP(w, r)
	})
}

// refusal is why a body is not accepted, in words for the client.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return r.message }

func tooLarge(limit int64) *refusal {
	return &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("request body too large: the limit is %d bytes (max_body_bytes)", limit)}
}

// errGone means that the client's connection ended before its body did, or that a drain's deadline passed.
var errGone = errors.New("the client left")

// How long a body may take (contract row 1.12): bodySilence without a byte, and altogether bodyGrace and a second for every
// minBodyRate bytes.
const (
	bodySilence = 30 * time.Second
	bodyGrace   = 30 * time.Second
	minBodyRate = 16 << 10
)

// past is a deadline that ends every read at once. That includes net/http's own read of the rest of a body before it closes a connection.
var past = time.Unix(1, 0)

// upload is a request body that is being read.
type upload struct {
	*proxy
	*exchange
	r       *http.Request
	control *http.ResponseController
	body    requestBody
	begun   time.Time // when it got its reservation; grow adds the time that it waits
	stalled time.Time // the deadlines of the read under way: no byte came,
	tooSlow time.Time // or too few
}

// receive reads the whole body. Its errors are a *refusal and errGone. Nothing is reserved before the first byte has come. A body
// that waits for its reservation is not read, so the kernel holds little of it.
func (u *upload) receive(budget *budget) error {
	var next [1]byte
	n, err := u.read(next[:])
	if n == 0 {
		return u.ended(err)
	}
	u.control.SetReadDeadline(time.Time{}) // if that was the last byte, net/http reads on and must not see a deadline
	reserved, gone := budget.reserve(u.r.Context(), u.r.ContentLength)
	if gone != nil {
		return errGone
	}
	u.body.reserved, u.begun = reserved, time.Now()
	piece := u.newPiece(next[0])
	for err == nil {
		if len(piece) < cap(piece) {
			n, err = u.read(piece[len(piece):cap(piece)])
			piece = piece[:len(piece)+n]
			continue
		}
		if n, err = u.read(next[:]); n > 0 {
			if u.bytesIn > reserved.size { // its length is unknown, and it is too large for a small body
				if err := u.grow(); err != nil {
					return err
				}
			}
			u.body.pieces = append(u.body.pieces, piece)
			piece = u.newPiece(next[0])
		}
	}
	if err := u.ended(err); err != nil {
		return err
	}
	if len(piece) < cap(piece) {
		piece = slices.Clone(piece)
	}
	u.body.pieces = append(u.body.pieces, piece)
	reserved.shrink(u.bytesIn)
	return nil
}

// newPiece returns memory for more of the body, with the byte that was read last in it.
func (u *upload) newPiece(first byte) []byte {
	return append(make([]byte, 0, min(pieceSize, u.body.reserved.size-u.bytesIn+1)), first)
}

// grow reserves what the largest body needs.
func (u *upload) grow() error {
	if u.bytesIn > u.MaxBodyBytes {
		return tooLarge(u.MaxBodyBytes)
	}
	start := time.Now()
	u.control.SetReadDeadline(time.Time{})
	if u.body.reserved.grow(u.r.Context()) != nil {
		return errGone
	}
	u.begun = u.begun.Add(time.Since(start))
	return nil
}

// silence is how long the client may send nothing.
func (u *upload) silence() time.Duration { return min(bodySilence, u.Timeout) }

func (u *upload) read(b []byte) (int, error) {
	now := time.Now()
	u.stalled, u.tooSlow = now.Add(u.silence()), now.Add(bodyGrace)
	if !u.begun.IsZero() {
		u.tooSlow = u.begun.Add(bodyGrace + time.Duration(u.bytesIn/minBodyRate)*time.Second)
	}
	deadline := u.stalled
	if u.tooSlow.Before(deadline) {
		deadline = u.tooSlow
	}
	u.control.SetReadDeadline(deadline)
	// A drain's deadline does not wait for uploads. It interrupts the reads that wait, and this stops those that begin later.
	if u.r.Context().Err() != nil {
		return 0, errGone
	}
	n, err := u.r.Body.Read(b)
	u.bytesIn += int64(n)
	u.metrics.BytesIn.Add(float64(n))
	return n, err
}

// ended turns the error that ended the reading into nil, errGone or a *refusal. net/http does not report every deadline as a timeout, so
// ended compares the time.
func (u *upload) ended(err error) error {
	var opErr *net.OpError
	switch now := time.Now(); {
	case err == io.EOF:
		return nil
	case err == errGone, context.Cause(u.r.Context()) == ErrDraining:
		return errGone
	case !now.Before(u.stalled):
		return &refusal{http.StatusRequestTimeout, fmt.Sprintf("request body stalled: no byte for %vs", u.silence().Seconds())}
	case !now.Before(u.tooSlow):
		return &refusal{http.StatusRequestTimeout, fmt.Sprintf("request body too slow: it may take %vs, and a second more for every %d KiB", bodyGrace.Seconds(), minBodyRate>>10)}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &opErr),
		strings.Contains(err.Error(), "trailer"): // net/http reports trailers that break off only by this text
		return errGone
	}
	return &refusal{http.StatusBadRequest, "request body is malformed: its chunked encoding is broken"}
}

// discardTime is how long a client may go on sending after a 413.
const discardTime = 5 * time.Second

// refuseBody answers a request whose body was not read to its end. A client that is still
// sending would find the connection reset and might never see the answer (RFC 9112 section 9.6), so after a 413
// its bytes are read and dropped for discardTime.
func (p *proxy) refuseBody(w http.ResponseWriter, r *http.Request, x *exchange, reason *refusal) {
	control := http.NewResponseController(w)
	control.SetReadDeadline(past)
	control.EnableFullDuplex() // answer now, not after the rest of the body
	p.refuse(w, x, reason.status, reason.message)
	if reason.status == http.StatusRequestEntityTooLarge {
		control.Flush()
		x.end = time.Now()
		control.SetReadDeadline(x.end.Add(discardTime))
		io.Copy(io.Discard, r.Body)
		control.SetReadDeadline(past)
	}
}
