package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// direct is a client that needs no proxy.
func direct(t *testing.T) (*standin.Server, *Client) {
	t.Helper()
	s, err := standin.Start(standin.Options{Plain: true})
	assert.NilError(t, err)
	t.Cleanup(func() { assert.Check(t, s.Close()) })
	c := New(s.URL)
	c.Flags += "," + standin.OAuthFlag
	t.Cleanup(c.Close)
	return s, c
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestParts(t *testing.T) {
	s, c := direct(t)
	ctx := patient(t)
	body := []byte(strings.Repeat("a question", 30000))
	for _, p := range []standin.Part{{}, {Size: 1}, {Size: 300_001}, {Early: true}, {Rate: 1 << 30}, {Delay: time.Millisecond}} {
		assert.NilError(t, c.Ask(ctx, p, body), "%s", p)
	}
	for _, p := range []standin.Part{{Events: 1}, {Events: 40, Text: 5000, Every: time.Microsecond}} {
		stream, err := c.Open(ctx, p, body)
		assert.NilError(t, err, "%s", p)
		assert.NilError(t, stream.Rest(), "%s", p)
		assert.Equal(t, stream.Events, p.Events)
		stream.Close()
	}
	var refused *StatusError
	assert.Assert(t, errors.As(c.Ask(ctx, standin.Part{Status: 529}, body), &refused))
	assert.Equal(t, refused.Status, 529)
	assert.Assert(t, c.Ask(ctx, standin.Part{End: standin.Cut}, body) != nil)

	t.Run("a stream that is cut", func(t *testing.T) {
		stream, err := c.Open(ctx, standin.Part{Events: 3, End: standin.Cut}, body)
		assert.NilError(t, err)
		err = stream.Rest()
		assert.Assert(t, errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
	})
	t.Run("stalls, and a client that leaves", func(t *testing.T) {
		leaving, leave := context.WithCancel(ctx)
		ended := make(chan error, 1)
		stalls := standin.Part{Name: "stalls", Stalls: 1}
		go func() { ended <- c.Ask(leaving, stalls, body) }()
		assert.NilError(t, s.Await(ctx, "stalls", func(arrived, running int) bool { return arrived == 1 && running == 1 }))
		leave()
		assert.ErrorIs(t, <-ended, context.Canceled)
		assert.NilError(t, s.Await(ctx, "stalls", func(_, running int) bool { return running == 0 }))
		assert.NilError(t, c.Ask(ctx, stalls, body))
	})
	t.Run("hold and release", func(t *testing.T) {
		stream, err := c.Open(ctx, standin.Part{Name: "held", Events: 1, End: standin.Hold}, body)
		assert.NilError(t, err)
		_, err = stream.Next()
		assert.NilError(t, err)
		ended := make(chan error, 1)
		go func() { ended <- stream.Rest() }()
		for { // it may not be waiting for the release yet
			res, err := c.Do(ctx, http.MethodPost, standin.PartPath+"/release", nil, 0)
			assert.NilError(t, err)
			res.Body.Close()
			assert.Equal(t, res.StatusCode, http.StatusNoContent)
			select {
			case err := <-ended:
				assert.NilError(t, err)
				return
			case <-time.After(time.Millisecond):
			}
		}
	})
	t.Run("paced", func(t *testing.T) {
		stream, err := c.Open(ctx, standin.Part{Paced: true}, body)
		assert.NilError(t, err)
		defer stream.Close()
		for range 3 {
			_, err := stream.Next()
			assert.NilError(t, err)
			s.Tick(7)
		}
	})
	t.Run("a reset", func(t *testing.T) {
		stream, err := c.Open(ctx, standin.Part{Events: 1, End: standin.Hang}, body)
		assert.NilError(t, err)
		for s.Reset(func(int) int { return 0 }) {
		}
		assert.Assert(t, stream.Rest() != nil)
	})
	t.Run("without the flag, or with nonsense", func(t *testing.T) {
		stranger := New(s.URL)
		assert.ErrorContains(t, stranger.Ask(ctx, standin.Part{}, body), "exactly once")
		assert.ErrorContains(t, c.Ask(ctx, standin.Part{End: "well"}, body), "no such end")
	})
}

// What is not what was sent is found, wherever it is.
func TestWrongBytes(t *testing.T) {
	good := standin.AppendLast(standin.AppendEvent(standin.AppendEvent(nil, 0, 1, 5), 1, 1, 5), 2)
	read := func(text string) error {
		res := &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, ContentLength: -1,
			Body: io.NopCloser(strings.NewReader(text))}
		stream, err := NewStream(res, standin.Part{Text: 5})
		assert.NilError(t, err)
		return stream.Rest()
	}
	assert.NilError(t, read(string(good)))
	for n := range good {
		assert.ErrorIs(t, read(string(good[:n])), ErrWrongBytes, "cut after %d bytes", n)
		changed := []byte(string(good))
		changed[n] ^= 0x80
		assert.Assert(t, read(string(changed)) != nil, "byte %d changed", n)
	}
	assert.ErrorIs(t, read(string(good)+"\n"), ErrWrongBytes)
	assert.ErrorIs(t, Check(strings.NewReader("x"), standin.Part{Size: 2}, nil), ErrWrongBytes)
	assert.ErrorIs(t, Check(strings.NewReader("0123x"), standin.Part{Size: 5}, nil), ErrWrongBytes)
	assert.ErrorIs(t, Check(strings.NewReader(standin.ReceiptFor([]byte("a"))), standin.Part{}, []byte("b")), ErrWrongBytes)
}
