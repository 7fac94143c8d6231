package h2

import (
	"errors"

	"golang.org/x/net/http2"
)

var (
	// ErrDead ends the exchanges of a connection whose peer has not answered a PING in time.
	ErrDead = errors.New("h2: the peer does not answer")
	// ErrClosed ends the exchanges of a connection that the peer closed, in the middle or with an error code.
	ErrClosed = errors.New("h2: the peer closed the connection")
	// ErrMalformed ends an exchange, or a connection, on which the peer broke the protocol.
	ErrMalformed = errors.New("h2: the peer does not keep to the protocol")
	// ErrRefused means that the upstream refused a request twice, unprocessed.
	ErrRefused = errors.New("h2: the upstream refused the request twice")
	// ErrNoStreams means that the peer allows no streams on a new connection.
	ErrNoStreams = errors.New("h2: the peer allows no streams")

	// errUnprocessed ends an exchange that certainly was not processed.
	errUnprocessed = errors.New("h2: not processed")
	errBodyClosed  = errors.New("h2: read from a closed body")
	errShortBody   = errors.New("h2: the request body is shorter than its length")
)

// ResetError is the end of an exchange whose stream the peer reset.
type ResetError struct{ Code http2.ErrCode }

// Error names the code.
func (e *ResetError) Error() string { return "h2: the peer reset the stream: " + e.Code.String() }

// errNoConn tells http.Transport that the connection it offers takes no further stream, and that it should dial another.
type errNoConn struct{}

func (errNoConn) Error() string             { return "h2: no connection takes a further stream" }
func (errNoConn) IsHTTP2NoCachedConnError() {} // the name is how http.Transport knows it
