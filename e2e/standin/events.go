package standin

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// Block is one content block of an answer: text, or the call of a tool.
type Block struct {
	Text []string // one delta each
	Tool string   // the tool's name, with Input as its arguments in JSON
	// Input arrives in two deltas: a client must put them together before it parses them.
	Input string
}

var greeting = []Block{{Text: []string{"Hello", " from", " the", " stand-in", "."}}}

func (b Block) whole() map[string]any {
	if b.Tool != "" {
		return map[string]any{"type": "tool_use", "id": newID("toolu_"), "name": b.Tool, "input": json.RawMessage(b.Input)}
	}
	text := ""
	for _, t := range b.Text {
		text += t
	}
	return map[string]any{"type": "text", "text": text}
}

func (b Block) start() map[string]any {
	m := b.whole()
	if b.Tool != "" {
		m["input"] = map[string]any{}
	} else {
		m["text"] = ""
	}
	return m
}

func (b Block) deltas() []map[string]any {
	var deltas []map[string]any
	if b.Tool != "" {
		half := len(b.Input) / 2
		for _, part := range []string{b.Input[:half], b.Input[half:]} {
			deltas = append(deltas, map[string]any{"type": "input_json_delta", "partial_json": part})
		}
	}
	for _, text := range b.Text {
		deltas = append(deltas, map[string]any{"type": "text_delta", "text": text})
	}
	return deltas
}

func stopReason(content []Block) string {
	for _, b := range content {
		if b.Tool != "" {
			return "tool_use"
		}
	}
	return "end_turn"
}

// wholeMessage returns the answer to a request that does not stream.
func wholeMessage(model string, content []Block, inputTokens int) map[string]any {
	blocks, outputTokens := []any{}, 0
	for _, b := range content {
		blocks = append(blocks, b.whole())
		outputTokens += len(b.deltas())
	}
	m := emptyMessage(model, inputTokens)
	m["content"] = blocks
	m["stop_reason"] = stopReason(content)
	m["usage"] = map[string]any{"input_tokens": inputTokens, "output_tokens": outputTokens}
	return m
}

func emptyMessage(model string, inputTokens int) map[string]any {
	return map[string]any{
		"id": newID("msg_"), "type": "message", "role": "assistant", "model": model,
		"content": []any{}, "stop_reason": nil, "stop_sequence": nil,
		"usage": map[string]any{"input_tokens": inputTokens, "output_tokens": 1},
	}
}

// events returns the same answer as a stream. The ping comes right after the first block's start, as in the original.
func events(model string, content []Block, inputTokens int) []map[string]any {
	all := []map[string]any{{"type": "message_start", "message": emptyMessage(model, inputTokens)}}
	outputTokens := 0
	for i, b := range content {
		all = append(all, map[string]any{"type": "content_block_start", "index": i, "content_block": b.start()})
		if i == 0 {
			all = append(all, map[string]any{"type": "ping"})
		}
		for _, delta := range b.deltas() {
			all = append(all, map[string]any{"type": "content_block_delta", "index": i, "delta": delta})
			outputTokens++
		}
		all = append(all, map[string]any{"type": "content_block_stop", "index": i})
	}
	return append(all,
		map[string]any{
			"type":  "message_delta",
			"delta": map[string]any{"stop_reason": stopReason(content), "stop_sequence": nil},
			"usage": map[string]any{"output_tokens": outputTokens},
		},
		map[string]any{"type": "message_stop"})
}

// stream sends the events one by one, at the scene's pace.
func stream(w http.ResponseWriter, r *http.Request, sc Scene, all []map[string]any) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	for i, event := range all {
		if i > 0 && !pace(r, sc) {
			return
		}
		if err := send(w, event); err != nil {
			return
		}
	}
}

// pace waits until the next event may be sent. It returns false if the client left.
func pace(r *http.Request, sc Scene) bool {
	if sc.Step == nil {
		return r.Context().Err() == nil
	}
	select {
	case <-sc.Step:
		return true
	case <-r.Context().Done():
		return false
	}
}

func send(w http.ResponseWriter, event map[string]any) error {
	data, err := json.Marshal(event)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event["type"], data); err != nil {
		return err
	}
	return http.NewResponseController(w).Flush()
}
