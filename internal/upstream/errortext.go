package upstream

import (
	"regexp"
	"strings"
)

// Some of net/http's errors have no type, only a text. These are all the texts that this package relies on. Tests provoke each of them
// with the real transport, so they notice if a Go release changes one: TestUnansweredPing, TestClassifyRealErrors, internal/proxy's
// TestHTTP2 and e2e/faults.
const (
	pingUnanswered    = "http2: client connection lost"
	handshakeTimedOut = "net/http: TLS handshake timeout"
	headersTooLarge   = "http2: request header list larger than peer's advertised limit"
	notWritten        = "net/http: cannot rewind body after connection loss" // nothing of the request was written
	idleClosed        = "http: server closed idle connection"                // before net/http wrote to it

	// The stream's id is above the last one of GOAWAY (RFC 9113 section 6.8).
	beyondGoAway = "http2: Transport: cannot retry err [http2: Transport received Server's graceful shutdown GOAWAY]"
)

var (
	goneAway = texts{"http2: server sent GOAWAY and closed the connection", "http2: Transport received GOAWAY from server"}
	closed   = texts{idleClosed, "http2: client conn could not be established", "http2: client conn is closed", notWritten}
	notHTTP  = texts{"malformed", "HTTP/1.x transport connection broken", "connection error: ", "looked like an HTTP/1.1 header",
		"http2: frame too large", "chunk length", "header line too long"}

	// The upstream closed the connection because of a request's headers. It is new, so their limit was not known yet.
	headersRejected = regexp.MustCompile(`^http2: (?:server sent GOAWAY and closed the connection; LastStreamID=\d+, ErrCode=|` +
		`Transport received GOAWAY from server ErrCode:)COMPRESSION_ERROR`)
	// The reset of an HTTP/2 stream, with its code and its origin (golang/go#53896).
	streamError = regexp.MustCompile(
		`^(?:http2: Transport: cannot retry err \[)?stream error: stream ID \d+; (\w+|unknown error code 0x\w+)(?:; (received from peer)?|\]|$)`)
)

// texts are parts of error texts. They only choose the words of a reason, because an error may quote the upstream. What decides on a retry
// or a status must be at the error's beginning.
type texts []string

// says reports whether one of the texts occurs in the error.
func says(err error, any texts) bool {
	for _, text := range any {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

func begins(err error, text string) bool { return strings.HasPrefix(err.Error(), text) }

// notProcessed reports whether an attempt's error proves that the upstream did not process the request: either it said so, or nothing
// was written. If it closes a new connection at once, that proves nothing about the next one.
func notProcessed(err error, reused bool) bool {
	return refused(err) || begins(err, notWritten) || reused && begins(err, idleClosed)
}

// refused reports whether the upstream said that it did not process the request (RFC 9113 sections 6.8 and 8.7).
func refused(err error) bool {
	code, _ := streamReset(err)
	return code == "REFUSED_STREAM" || begins(err, beyondGoAway)
}

// streamReset returns the code with which an HTTP/2 stream ended (RFC 9113 section 7), or "". fromPeer is false if net/http ended it, because
// of what the upstream sent.
func streamReset(err error) (code string, fromPeer bool) {
	if match := streamError.FindStringSubmatch(err.Error()); match != nil {
		return match[1], match[2] != ""
	}
	return "", false
}
