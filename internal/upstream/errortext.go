package upstream

import (
	"fmt"
	"strings"
)

// Some of net/http's errors have no type, only a text. These are all the texts that this package relies on. Tests provoke each of them
// with the real transport, so they notice if a Go release changes one: TestUnansweredPing, TestClassifyRealErrors, internal/proxy's
// TestHTTP2 and e2e/faults.
var (
	pingUnanswered    = texts{"http2: client connection lost"}
	handshakeTimedOut = texts{"net/http: TLS handshake timeout"}
	headersTooLarge   = texts{"http2: request header list larger than peer's advertised limit"}
	headersRejected   = texts{"ErrCode=COMPRESSION_ERROR"} // on a new connection, on which the upstream's limit is not known yet
	refused           = texts{                             // RFC 9113 sections 6.8 and 8.7
		"cannot retry err [http2: Transport received Server's graceful shutdown GOAWAY]", // the stream's id is above the last one of GOAWAY
		"; REFUSED_STREAM"}
	notWritten    = texts{"net/http: cannot rewind body after connection loss"} // nothing of the request
	idleClosed    = texts{"http: server closed idle connection"}                // before net/http could write
	protocolReset = texts{"; PROTOCOL_ERROR; received from peer"}
	goneAway      = texts{"http2: server sent GOAWAY and closed the connection", "http2: Transport received GOAWAY from server"}
	closed        = texts{idleClosed[0], "http2: client conn could not be established", notWritten[0]}
	notHTTP       = texts{"malformed", "HTTP/1.x transport connection broken", "connection error: ", "looked like an HTTP/1.1 header",
		"http2: frame too large", "chunk length", "header line too long"}
)

// texts are parts of error texts. One of them must occur.
type texts []string

func says(err error, any texts) bool {
	for _, text := range any {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// notProcessed reports whether an attempt's error proves that the upstream did not process the request: either it said so, or nothing
// was written. If it closes a new connection at once, that proves nothing about the next one.
func notProcessed(err error, reused bool) bool {
	return says(err, refused) || says(err, notWritten) || reused && says(err, idleClosed)
}

// streamError has the same fields as the stream error of net/http's HTTP/2, so errors.As can fill it in (golang/go#53896).
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "stream error " + e.code() }

// fromPeer reports whether the upstream reset the stream. Otherwise net/http did, because of what the upstream sent.
func (e streamError) fromPeer() bool {
	return e.Cause != nil && e.Cause.Error() == "received from peer"
}

// code is the name of the error code, RFC 9113 section 7.
func (e streamError) code() string {
	names := [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
		"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
		"INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"}
	if int(e.Code) < len(names) {
		return names[e.Code]
	}
	return fmt.Sprintf("code %d", e.Code)
}
