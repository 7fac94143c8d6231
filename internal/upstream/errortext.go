package upstream

import (
	"fmt"
	"strings"
)

// net/http gives some of its errors no type, only a text. These are all the texts that are relied upon. A test provokes each with
// the real transport, so a Go release that changes one is noticed: TestUnansweredPing, TestClassifyRealErrors, internal/proxy's
// TestHTTP2 and e2e/faults.
var (
	pingUnanswered    = texts{"http2: client connection lost"}
	handshakeTimedOut = texts{"net/http: TLS handshake timeout"}
	headersTooLarge   = texts{"http2: request header list larger than peer's advertised limit"}
	refused           = texts{ // RFC 9113 sections 6.8 and 8.7
		"cannot retry err [http2: Transport received Server's graceful shutdown GOAWAY]", // the stream is beyond its last id
		"; REFUSED_STREAM"}
	notWritten    = texts{"net/http: cannot rewind body after connection loss"} // nothing of the request
	idleClosed    = texts{"http: server closed idle connection"}                // before net/http could write
	protocolReset = texts{"; PROTOCOL_ERROR; received from peer"}
	goneAway      = texts{"http2: server sent GOAWAY and closed the connection", "http2: Transport received GOAWAY from server"}
	closed        = texts{idleClosed[0], "http2: client conn could not be established", notWritten[0]}
	notHTTP       = texts{"malformed", "HTTP/1.x transport connection broken", "connection error: ", "looked like an HTTP/1.1 header",
		"http2: frame too large", "chunk length", "header line too long"}
)

// texts are parts of an error's text, any of which will do.
type texts []string

func says(err error, any texts) bool {
	for _, text := range any {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// notProcessed reports whether an attempt's error proves that the upstream did not process the request: it said so, or nothing
// was written. A new connection that is closed at once proves nothing about the next one.
func notProcessed(err error, reused bool) bool {
	return says(err, refused) || says(err, notWritten) || reused && says(err, idleClosed)
}

// streamError has the fields of the stream error of net/http's HTTP/2, which fills in any struct that has (golang/go#53896).
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

func (e streamError) Error() string { return "stream error " + e.code() }

// fromPeer reports whether the stream was reset by the upstream, and not by net/http for what the upstream sent.
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
