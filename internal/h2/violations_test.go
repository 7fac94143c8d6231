package h2

import (
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// raw writes a frame that may be invalid.
func (p *peer) raw(kind http2.FrameType, flags http2.Flags, stream uint32, payload string) {
	p.out.WriteRawFrame(kind, flags, stream, []byte(payload))
}

// What breaks the connection ends all exchanges, and the peer hears why. What does not concern the others only resets a
// stream, and what is of no interest is ignored. Stream 1 is over, 3 and 5 are open.
func TestViolations(t *testing.T) {
	const ok, reset = "", "RST_STREAM 3 "
	protocol := "GOAWAY PROTOCOL_ERROR, EOF"
	size := "GOAWAY FRAME_SIZE_ERROR, EOF"
	for name, test := range map[string]struct {
		say  func(p *peer)
		said string
	}{
		"DATA on the connection":             {func(p *peer) { p.raw(http2.FrameData, 0, 0, "x") }, protocol},
		"DATA on a stream that never was":    {func(p *peer) { p.data(7, "x") }, protocol},
		"DATA on a stream of the peer":       {func(p *peer) { p.data(2, "x") }, protocol},
		"DATA on a stream that is over":      {func(p *peer) { p.data(1, "x") }, ok},
		"DATA with more padding than length": {func(p *peer) { p.raw(http2.FrameData, http2.FlagDataPadded, 3, "\x05abc") }, protocol},
		"HEADERS on the connection":          {func(p *peer) { p.headers(0, ":status: 200") }, protocol},
		"HEADERS on a stream that never was": {func(p *peer) { p.headers(7, ":status: 200") }, protocol},
		"HEADERS on a stream of the peer":    {func(p *peer) { p.headers(2, ":status: 200") }, protocol},
		"HEADERS on a stream that is over":   {func(p *peer) { p.headers(1, ":status: 200") }, ok},
		"HEADERS that do not decode":         {func(p *peer) { p.raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 3, "\xff\xff\xff\xff\xff") }, "GOAWAY COMPRESSION_ERROR, EOF"},
		"HEADERS not continued":              {func(p *peer) { p.raw(http2.FrameHeaders, 0, 3, "\x88"); p.raw(http2.FramePing, 0, 0, "12345678") }, protocol},
		"HEADERS continued elsewhere": {func(p *peer) {
			p.raw(http2.FrameHeaders, 0, 3, "\x88")
			p.raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 5, "\x88")
		}, protocol},
		"CONTINUATION of nothing":                    {func(p *peer) { p.raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 3, "\x88") }, protocol},
		"malformed HEADERS":                          {func(p *peer) { p.headers(3, ":status: 200", "Bad: x") }, reset + "PROTOCOL_ERROR"},
		"malformed HEADERS on a stream that is over": {func(p *peer) { p.headers(1, ":status: 200", "Bad: x") }, ok},
		"PRIORITY":                              {func(p *peer) { p.out.WritePriority(3, http2.PriorityParam{StreamDep: 5}) }, ok},
		"PRIORITY on a stream that never was":   {func(p *peer) { p.out.WritePriority(7, http2.PriorityParam{}) }, ok},
		"RST_STREAM on the connection":          {func(p *peer) { p.raw(http2.FrameRSTStream, 0, 0, "\x00\x00\x00\x00") }, protocol},
		"RST_STREAM on a stream that never was": {func(p *peer) { p.out.WriteRSTStream(7, http2.ErrCodeCancel) }, protocol},
		"RST_STREAM on a stream that is over":   {func(p *peer) { p.out.WriteRSTStream(1, http2.ErrCodeCancel) }, ok},
		"RST_STREAM too short":                  {func(p *peer) { p.raw(http2.FrameRSTStream, 0, 3, "\x00\x00") }, size},
		"SETTINGS on a stream":                  {func(p *peer) { p.raw(http2.FrameSettings, 0, 3, "") }, protocol},
		"SETTINGS cut":                          {func(p *peer) { p.raw(http2.FrameSettings, 0, 0, "\x00\x04\x00") }, size},
		"SETTINGS acknowledged with content":    {func(p *peer) { p.raw(http2.FrameSettings, http2.FlagSettingsAck, 0, "\x00\x04\x00\x00\x00\x00") }, size},
		"SETTINGS with too small a frame size":  {func(p *peer) { p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16383}) }, protocol},
		"SETTINGS with too large a frame size":  {func(p *peer) { p.out.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 24}) }, protocol},
		"SETTINGS with too large a window": {func(p *peer) { p.out.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31}) },
			"GOAWAY FLOW_CONTROL_ERROR, EOF"},
		"SETTINGS that make a window too large": {func(p *peer) {
			p.out.WriteWindowUpdate(3, 1)
			p.out.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
		}, "GOAWAY FLOW_CONTROL_ERROR, EOF"},
		"PUSH_PROMISE": {func(p *peer) {
			p.out.WritePushPromise(http2.PushPromiseParam{StreamID: 3, PromiseID: 2, EndHeaders: true})
		}, protocol},
		"PING on a stream":                         {func(p *peer) { p.raw(http2.FramePing, 0, 3, "12345678") }, protocol},
		"PING too short":                           {func(p *peer) { p.raw(http2.FramePing, 0, 0, "1234567") }, size},
		"PING":                                     {func(p *peer) { p.raw(http2.FramePing, 0, 0, "12345678") }, "PING ack"},
		"PING answered unasked":                    {func(p *peer) { p.raw(http2.FramePing, http2.FlagPingAck, 0, "12345678") }, ok},
		"GOAWAY on a stream":                       {func(p *peer) { p.raw(http2.FrameGoAway, 0, 3, "12345678") }, protocol},
		"GOAWAY too short":                         {func(p *peer) { p.raw(http2.FrameGoAway, 0, 0, "1234567") }, size},
		"WINDOW_UPDATE of nothing":                 {func(p *peer) { p.out.WriteWindowUpdate(0, 0) }, protocol},
		"WINDOW_UPDATE of nothing on a stream":     {func(p *peer) { p.out.WriteWindowUpdate(3, 0) }, reset + "PROTOCOL_ERROR"},
		"WINDOW_UPDATE beyond all":                 {func(p *peer) { p.out.WriteWindowUpdate(0, 1<<31-65535) }, "GOAWAY FLOW_CONTROL_ERROR, EOF"},
		"WINDOW_UPDATE beyond all on a stream":     {func(p *peer) { p.out.WriteWindowUpdate(3, 1<<31-65535) }, reset + "FLOW_CONTROL_ERROR"},
		"WINDOW_UPDATE to the limit":               {func(p *peer) { p.out.WriteWindowUpdate(0, 1<<31-65536); p.out.WriteWindowUpdate(3, 1<<31-65536) }, ok},
		"WINDOW_UPDATE on a stream that never was": {func(p *peer) { p.out.WriteWindowUpdate(7, 1) }, protocol},
		"WINDOW_UPDATE on a stream that is over":   {func(p *peer) { p.out.WriteWindowUpdate(1, 1) }, ok},
		"WINDOW_UPDATE too short":                  {func(p *peer) { p.raw(http2.FrameWindowUpdate, 0, 0, "\x00") }, size},
		"an unknown frame":                         {func(p *peer) { p.raw(0xfa, 0xff, 99, "what is this") }, ok},
		"a frame that is too long":                 {func(p *peer) { p.raw(0xfa, 0, 0, strings.Repeat("x", 16385)) }, size},
		"a frame as long as allowed":               {func(p *peer) { p.raw(0xfa, 0, 0, strings.Repeat("x", 16384)) }, ok},
	} {
		t.Run(name, func(t *testing.T) {
			scripted(t, func(t *testing.T, tr *Transport, p *peer) {
				get(tr)
				p.take()
				p.headersEnd(1, ":status: 200")
				x := get(tr)
				p.take()
				other := get(tr)
				p.take()
				test.say(p)
				assert.Equal(t, strings.Join(p.take(), ", "), test.said)
				if x.done {
					assert.ErrorIs(t, x.err, ErrMalformed)
				}
				if other.done {
					assert.ErrorIs(t, other.err, ErrMalformed)
				}
				assert.Equal(t, x.done, test.said != ok && test.said != "PING ack")
				assert.Equal(t, other.done, strings.HasPrefix(test.said, "GOAWAY"))
				p.headersEnd(3, ":status: 200") // and all goes on
				p.headersEnd(5, ":status: 200")
				synctest.Wait()
				assert.Assert(t, x.done && other.done)
				assert.Assert(t, other.err == nil || strings.HasPrefix(test.said, "GOAWAY"))
			})
		})
	}
}
