package proxy

import (
	"io"
	"net"
	"testing"

	"gotest.tools/v3/assert"
)

// net/http closes a body that it has not read when an HTTP/2 connection turns out to take no more requests, and then reads it for another
// one: it must be whole. A body that was closed within has no proper end: it would pass for a shorter one (contract row 1.10).
func TestBodyReaderAfterClose(t *testing.T) {
	body := requestBody{pieces: net.Buffers{[]byte("hel"), []byte("lo")}}
	unread, err := body.open()
	assert.NilError(t, err)
	assert.NilError(t, unread.Close())
	text, err := io.ReadAll(unread)
	assert.NilError(t, err)
	assert.Equal(t, string(text), "hello")

	half, err := body.open()
	assert.NilError(t, err)
	_, err = half.Read(make([]byte, 2))
	assert.NilError(t, err)
	assert.NilError(t, half.Close())
	_, err = half.Read(make([]byte, 2))
	assert.ErrorIs(t, err, io.ErrClosedPipe)
}
