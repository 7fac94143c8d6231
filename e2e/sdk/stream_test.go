package sdk_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"github.com/anthropics/anthropic-sdk-go/v2/packages/ssestream"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// 3.1: a streamed answer with text and a tool call, put together by the SDK.
func TestStream(t *testing.T) {
	overBoth(t, binary.Config{}, func(t *testing.T, w world) {
		w.api.Play(standin.Scene{Content: []standin.Block{
			{Text: []string{"It", " is", " 14", " °C"}},
			{Tool: "weather", Input: `{"city":"Zürich"}`},
		}})
		client := w.client(t)
		var response *http.Response
		stream := client.Messages.NewStreaming(patient(t), ask(prompt), option.WithResponseInto(&response))
		defer stream.Close()
		var message anthropic.Message
		for stream.Next() {
			assert.NilError(t, message.Accumulate(stream.Current()))
		}
		assert.NilError(t, stream.Err())
		assert.Equal(t, message.Content[0].Text, "It is 14 °C")
		assert.Equal(t, message.Content[1].Name, "weather")
		assert.Equal(t, string(message.Content[1].Input), `{"city":"Zürich"}`)
		assert.Equal(t, message.StopReason, anthropic.StopReasonToolUse)

		assert.Equal(t, response.Header.Get("Content-Type"), "text/event-stream; charset=utf-8")
		assert.Equal(t, response.Header.Get("Request-Id"), w.received(t).ID)
		line := w.proxy.Finished(t, response.Header.Get("X-Proxy-Request-Id"))
		assert.Equal(t, line["outcome"], "complete")
	})
}

// 3.1: every event, pings included, reaches the client before the API sends the next one. A
// proxy that holds an event back makes this test wait until its deadline.
func TestEventsArriveOneByOne(t *testing.T) {
	overBoth(t, binary.Config{}, func(t *testing.T, w world) {
		step := make(chan struct{})
		w.api.Play(standin.Scene{Step: step})
		ctx := patient(t)
		events := rawEvents(ctx, t, w)
		var types []string
		for events.Next() {
			types = append(types, events.Event().Type)
			if events.Event().Type == "message_stop" {
				continue
			}
			select {
			case step <- struct{}{}:
			case <-ctx.Done():
				t.Fatalf("the API waits for nobody after %v", types)
			}
		}
		assert.NilError(t, events.Err(), "the stream stopped after %v", types)
		delta := "content_block_delta"
		assert.DeepEqual(t, types, []string{
			"message_start", "content_block_start", "ping", delta, delta, delta, delta, delta,
			"content_block_stop", "message_delta", "message_stop",
		})
	})
}

// Streams do not wait for one another: each of several has its turn while the others stand still.
func TestStreamsSideBySide(t *testing.T) {
	overBoth(t, binary.Config{}, func(t *testing.T, w world) {
		ctx := patient(t)
		const n = 20
		steps, streams := make([]chan struct{}, n), make([]ssestream.Decoder, n)
		for i := range n {
			steps[i] = make(chan struct{})
			w.api.Play(standin.Scene{Step: steps[i]})
			streams[i] = rawEvents(ctx, t, w)
			assert.Assert(t, streams[i].Next(), "%v", streams[i].Err())
		}
		for i := n - 1; i >= 0; i-- {
			close(steps[i])
			last := ""
			for streams[i].Next() {
				last = streams[i].Event().Type
			}
			assert.NilError(t, streams[i].Err())
			assert.Equal(t, last, "message_stop")
		}
	})
}

// 3.4: an answer that breaks off must not look complete.
func TestBrokenStreamIsAnError(t *testing.T) {
	overBoth(t, binary.Config{}, func(t *testing.T, w world) {
		w.api.Play(standin.Scene{Cut: true, After: 5})
		client := w.client(t)
		var response *http.Response
		stream := client.Messages.NewStreaming(patient(t), ask(prompt), option.WithResponseInto(&response))
		defer stream.Close()
		for stream.Next() {
		}
		assert.Assert(t, errors.Is(stream.Err(), io.ErrUnexpectedEOF), "want an unexpected EOF, got %v", stream.Err())
		line := w.proxy.Finished(t, response.Header.Get("X-Proxy-Request-Id"))
		assert.Equal(t, line["outcome"], "upstream_reset")
	})
}

// 3.3: silence for timeout_secs on a started answer is an error as well.
func TestSilentStreamIsAnError(t *testing.T) {
	overBoth(t, binary.Config{Proxy: "timeout_secs = 1"}, func(t *testing.T, w world) {
		w.api.Play(standin.Scene{Hang: true, After: 5})
		client := w.client(t)
		var response *http.Response
		stream := client.Messages.NewStreaming(patient(t), ask(prompt), option.WithResponseInto(&response))
		defer stream.Close()
		for stream.Next() {
		}
		assert.Assert(t, errors.Is(stream.Err(), io.ErrUnexpectedEOF), "want an unexpected EOF, got %v", stream.Err())
		line := w.proxy.Finished(t, response.Header.Get("X-Proxy-Request-Id"))
		assert.Equal(t, line["outcome"], "idle_timeout")
	})
}

// 2.7: an error event in the middle is the API's word and arrives as such.
func TestErrorEvent(t *testing.T) {
	overBoth(t, binary.Config{}, func(t *testing.T, w world) {
		w.api.Play(standin.Scene{Error: standin.Overloaded(), After: 4})
		client := w.client(t)
		stream := client.Messages.NewStreaming(patient(t), ask(prompt))
		defer stream.Close()
		for stream.Next() {
		}
		refused := apiError(t, stream.Err())
		assert.Equal(t, refused.Type(), anthropic.ErrorTypeOverloadedError)
		assert.Equal(t, refused.RequestID, w.received(t).ID)
	})
}

// 2.8: the API learns at once that the client is gone, before the first byte and in mid-stream.
func TestClientLeaves(t *testing.T) {
	for name, scene := range map[string]standin.Scene{
		"while waiting": {Hang: true},
		"in mid-stream": {Hang: true, After: 5},
	} {
		t.Run(name, func(t *testing.T) {
			overBoth(t, binary.Config{}, func(t *testing.T, w world) {
				w.api.Play(scene)
				client := w.client(t)
				ctx, leave := context.WithCancel(patient(t))
				ended := make(chan error, 1)
				heard := make(chan struct{}, 16)
				go func() {
					defer close(heard)
					stream := client.Messages.NewStreaming(ctx, ask(prompt))
					defer stream.Close()
					for stream.Next() {
						heard <- struct{}{}
					}
					ended <- stream.Err()
				}()
				request, err := w.api.Next(patient(t))
				assert.NilError(t, err)
				// Of the five events one is a ping, which the SDK keeps to itself.
				for n := range max(0, scene.After-1) {
					_, ok := <-heard
					assert.Assert(t, ok, "the stream ended after %d events", n)
				}
				leave()
				gone, err := request.Finished(patient(t))
				assert.NilError(t, err)
				assert.Assert(t, gone, "the API finished its answer for a client that had left")
				assert.Assert(t, errors.Is(<-ended, context.Canceled))
				w.finishedAs(t, "client_gone", 499)
			})
		})
	}
}

// finishedAs waits for the only request's log line, whose id the client never got to see.
func (w world) finishedAs(t *testing.T, outcome string, status float64) {
	t.Helper()
	line := w.proxy.Only(t)
	assert.Equal(t, line["outcome"], outcome)
	if line["bytes_out"] == 0.0 {
		assert.Equal(t, line["status"], status)
	}
	assert.Assert(t, cmp.Regexp(`^req_[0-9a-f]{32,}$`, line["request_id"].(string)))
}

// rawEvents starts a streamed request and returns the SDK's own decoder, which does not hide pings.
func rawEvents(ctx context.Context, t *testing.T, w world) ssestream.Decoder {
	t.Helper()
	client := w.client(t)
	var response *http.Response
	err := client.Post(ctx, "v1/messages", ask(prompt), &response, option.WithJSONSet("stream", true))
	assert.NilError(t, err)
	t.Cleanup(func() { response.Body.Close() })
	return ssestream.NewDecoder(response)
}
