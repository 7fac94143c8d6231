package sdk_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/anthropics/anthropic-sdk-go/v2"
	"github.com/anthropics/anthropic-sdk-go/v2/option"
	"github.com/anthropics/anthropic-sdk-go/v2/packages/ssestream"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// 3.1: the SDK assembles a streamed answer with text and a tool call.
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

// 3.1: every event, including pings, reaches the client before the API sends the next one. If the
// proxy held an event back, this test would wait until its deadline.
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
				t.Fatalf("the API sent everything without waiting for the client, after %v", types)
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

// rawEvents starts a streamed request. It returns the SDK's low-level decoder, which does not hide pings.
func rawEvents(ctx context.Context, t *testing.T, w world) ssestream.Decoder {
	t.Helper()
	client := w.client(t)
	var response *http.Response
	err := client.Post(ctx, "v1/messages", ask(prompt), &response, option.WithJSONSet("stream", true))
	assert.NilError(t, err)
	t.Cleanup(func() { response.Body.Close() })
	return ssestream.NewDecoder(response)
}
