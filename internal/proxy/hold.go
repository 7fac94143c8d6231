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
)

// hold reads the request body into memory, so that an attempt can be repeated with identical bytes, as far as there is room
// (room.go). All room is returned when the response headers arrive, since no attempt can follow (contract section 1).
func (p *proxy) hold(next http.Handler) http.Handler {
	room := newRoom(p.MaxBufferedBytes, p.MaxBodyBytes, &p.metrics.HeldBytes)
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
		u.body = room.enter(r.ContentLength, func() { u.control.SetReadDeadline(past) })
		defer u.body.release()
		var refused *refusal
		switch err := u.receive(); {
		case errors.As(err, &refused):
			u.body.release()
			p.refuseBody(w, r, x, refused)
			return
		case err != nil:
			u.control.SetReadDeadline(past)
			panic(http.ErrAbortHandler)
		}
		x.held = u.body
		r.ContentLength = u.body.finish()      // from here on nobody interrupts its reads
		u.control.SetReadDeadline(time.Time{}) // net/http goes on reading, to notice when the client leaves
		r.TransferEncoding = nil
		r.Body = http.NoBody
		if r.ContentLength > 0 {
			r.Body, _ = u.body.open()
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

// errGone means that the client's connection ended before its body did, that a drain's deadline passed, or that the room is wanted.
var errGone = errors.New("the client left")

// bodySilence is how long a client may send nothing of a body that has begun (contract row 1.12).
const bodySilence = 30 * time.Second

// past is a deadline that interrupts a read. net/http, too, would wait for the rest of a body before it closes a connection.
var past = time.Unix(1, 0)

// upload reads a request body as it comes, counts it, and minds the time between its bytes.
type upload struct {
	*proxy
	*exchange
	r        *http.Request
	control  *http.ResponseController
	body     *heldBody
	deadline time.Time // of the read under way
}

// receive reads the whole body into u.body. Its errors are a *refusal and errGone.
func (u *upload) receive() error {
	for size := int64(0); ; {
		var first [1]byte // is awaited before room is taken: room is for bytes that came
		n, err := u.Read(first[:])
		if n > 0 {
			if size >= u.MaxBodyBytes {
				return tooLarge(u.MaxBodyBytes)
			}
			var piece []byte
			piece, err = u.piece(first[0], err)
			size += int64(len(piece))
			u.body.append(piece)
		}
		if err != nil {
			return u.ended(err)
		}
	}
}

// piece takes room, which may have to be waited for, and reads as much as fits, or to the body's end, which is io.EOF, and may
// have come with the first byte.
func (u *upload) piece(first byte, err error) ([]byte, error) {
	room := u.body.room
	if !room.ask(u.body) {
		u.metrics.Queued.Add(1)
		u.control.SetReadDeadline(time.Time{})
		ctx, stop := u.r.Context(), func() {}
		if err == nil { // else net/http reads on, to notice when the client leaves
			ctx, stop = watchDeparture(ctx)
		}
		err := room.await(ctx, u.body)
		stop()
		u.metrics.Queued.Add(-1)
		if err != nil {
			return nil, errGone
		}
	}
	piece := append(make([]byte, 0, u.body.want), first)
	for len(piece) < cap(piece) && err == nil {
		var n int
		n, err = u.Read(piece[len(piece):cap(piece)])
		piece = piece[:len(piece)+n]
	}
	return piece, err
}

// silence is how long the client may send nothing.
func (u *upload) silence() time.Duration { return min(bodySilence, u.Timeout) }

func (u *upload) Read(b []byte) (int, error) {
	u.deadline = time.Now().Add(u.silence()) // each byte buys the next one its time
	u.control.SetReadDeadline(u.deadline)
	// A drain's deadline does not wait for uploads, and room is taken from silent ones: both interrupt the reads that they find waiting.
	if u.r.Context().Err() != nil || u.body.evicted.Load() {
		return 0, errGone
	}
	n, err := u.r.Body.Read(b)
	if n > 0 {
		u.body.heard.Store(time.Now().UnixNano())
		u.bytesIn += int64(n)
		u.metrics.BytesIn.Add(float64(n))
	}
	return n, err
}

// ended says what the end of a body means. Not every error of net/http's tells of a deadline.
func (u *upload) ended(err error) error {
	var opErr *net.OpError
	switch {
	case err == io.EOF:
		return nil
	case context.Cause(u.r.Context()) == ErrDraining:
		return errGone
	case u.body.evicted.Load():
		return &refusal{http.StatusRequestTimeout, "request body stalled, and others wait for its room"}
	case err == errGone: // perhaps after a wait for room, and then the deadline is long past
		return errGone
	case !time.Now().Before(u.deadline):
		return &refusal{http.StatusRequestTimeout, fmt.Sprintf("request body stalled: no byte for %vs", u.silence().Seconds())}
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &opErr),
		strings.Contains(err.Error(), "trailer"): // all that net/http says of one that did not come to its end
		return errGone
	}
	return &refusal{http.StatusBadRequest, "request body is malformed: its chunked encoding is broken"}
}

// discardTime is how long a refused client may go on sending.
const discardTime = 5 * time.Second

// refuseBody answers a request whose body was not read to its end, and gives up its connection. A client that is still
// sending would find the connection reset and might never see the answer (RFC 9112 section 9.6), so what it sends is
// thrown away for a while.
func (p *proxy) refuseBody(w http.ResponseWriter, r *http.Request, x *exchange, reason *refusal) {
	w.Header().Set("Connection", "close")
	control := http.NewResponseController(w)
	control.SetReadDeadline(past)
	control.EnableFullDuplex() // answer now, not after the rest of the body
	p.refuse(w, x, reason.status, reason.message)
	if reason.status == http.StatusRequestEntityTooLarge {
		control.Flush()
		control.SetReadDeadline(time.Now().Add(discardTime))
		io.Copy(io.Discard, r.Body)
		control.SetReadDeadline(past)
	}
}
