package faults

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// Floods: frames that cost their sender little and could cost the proxy much. It may bear them or close the connection; it may not
// grow, hang, or let others feel it. Each is sent while the answer is awaited, and when it is over the answer follows, if it still can.
func TestH2Floods(t *testing.T) {
	t.Parallel()
	const frames = 100_000
	flood := func(frame func(fr *http2.Framer, s *h2stream)) func(*h2stream) {
		return func(s *h2stream) { s.many(frames, func(fr *http2.Framer) { frame(fr, s) }) }
	}
	for _, tt := range []struct {
		name  string
		flood func(s *h2stream)
		want  []end // default: answered or 502
		deaf  bool  // the upstream reads nothing until the request is over
	}{
		{name: "PING", flood: flood(func(fr *http2.Framer, s *h2stream) { fr.WritePing(false, [8]byte{1}) })},
		{name: "PING, acknowledgements unread", flood: func(s *h2stream) {
			s.many(8*frames, func(fr *http2.Framer) { fr.WritePing(false, [8]byte{1}) })
		}, want: []end{answered, failed, timedOut}, deaf: true},
		{name: "PING acknowledgements", flood: flood(func(fr *http2.Framer, s *h2stream) { fr.WritePing(true, [8]byte{1}) })},
		{name: "SETTINGS", flood: func(s *h2stream) {
			s.change(func() { s.lenient = true })
			s.many(frames, func(fr *http2.Framer) { fr.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 4096}) })
		}},
		{name: "SETTINGS, acknowledgements unread", flood: func(s *h2stream) {
			s.change(func() { s.lenient = true })
			s.many(8*frames, func(fr *http2.Framer) { fr.WriteSettings() })
		}, want: []end{answered, failed, timedOut}, deaf: true},
		{name: "large SETTINGS", flood: func(s *h2stream) {
			s.change(func() { s.lenient = true })
			s.many(200, func(fr *http2.Framer) {
				settings := make([]http2.Setting, 2700)
				for i := range settings {
					settings[i] = http2.Setting{ID: http2.SettingID(1000 + i), Val: 1}
				}
				fr.WriteSettings(settings...)
			})
		}},
		{name: "SETTINGS that resize the header table", flood: func(s *h2stream) {
			s.change(func() { s.lenient = true })
			s.many(frames/2, func(fr *http2.Framer) {
				fr.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
				fr.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 4096})
			})
		}},
		{name: "WINDOW_UPDATE of 1", flood: flood(func(fr *http2.Framer, s *h2stream) { fr.WriteWindowUpdate(0, 1); fr.WriteWindowUpdate(s.id, 1) })},
		{name: "PRIORITY", flood: flood(func(fr *http2.Framer, s *h2stream) { fr.WritePriority(s.id, http2.PriorityParam{StreamDep: 1}) })},
		{name: "PRIORITY of streams that do not exist", flood: func(s *h2stream) {
			s.many(10, func(fr *http2.Framer) {
				for i := range uint32(10_000) {
					fr.WritePriority(never-2*i, http2.PriorityParam{StreamDep: never})
				}
			})
		}},
		{name: "unknown frames", flood: flood(func(fr *http2.Framer, s *h2stream) { fr.WriteRawFrame(0xbe, 0, s.id, nil) })},
		{name: "large unknown frames", flood: func(s *h2stream) {
			s.many(4000, func(fr *http2.Framer) { fr.WriteRawFrame(0xbe, 0, 0, make([]byte, 16384)) })
		}},
		{name: "RST_STREAM", flood: flood(func(fr *http2.Framer, s *h2stream) { fr.WriteRSTStream(1, http2.ErrCodeCancel) })},
		{name: "empty DATA", flood: func(s *h2stream) {
			s.stream()
			s.many(frames, func(fr *http2.Framer) { fr.WriteData(s.id, false, nil) })
		}, want: []end{answered, broken}},
		{name: "GOAWAY", flood: flood(func(fr *http2.Framer, s *h2stream) { fr.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil) })},
		{name: "GOAWAY with much to say", flood: func(s *h2stream) {
			s.many(1000, func(fr *http2.Framer) { fr.WriteGoAway(1<<31-1, http2.ErrCodeNo, []byte(strings.Repeat(hush, 1000))) })
		}},
		{name: "1xx", flood: func(s *h2stream) {
			block := s.encode(":status", "103", "link", "</a>") // the first enters the table, the others refer to it
			s.write(func(fr *http2.Framer) {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: block, EndHeaders: true})
			})
			again := s.encode(":status", "103", "link", "</a>")
			s.many(frames/10, func(fr *http2.Framer) {
				fr.WriteHeaders(http2.HeadersFrameParam{StreamID: s.id, BlockFragment: again, EndHeaders: true})
			})
		}},
		{name: "CONTINUATION, empty", flood: func(s *h2stream) {
			s.raw(http2.FrameHeaders, 0, s.id, 0x88)
			s.many(frames, func(fr *http2.Framer) { fr.WriteContinuation(s.id, false, nil) })
			s.raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, s.id)
			s.change(func() { s.closed = true })
			s.raw(http2.FrameData, http2.FlagDataEndStream, s.id)
		}},
		{name: "CONTINUATION, large headers", flood: func(s *h2stream) {
			s.raw(http2.FrameHeaders, 0, s.id, 0x88)
			field := append([]byte{0x00, 0x03, 'x', '-', 'a', 0x7f, 0x81, 0x7d}, make([]byte, 16128)...) // a literal of 16128 bytes
			for i := range field[8:] {
				field[8+i] = 'v'
			}
			s.many(10_000, func(fr *http2.Framer) { fr.WriteContinuation(s.id, false, field) })
			s.fin()
		}, want: []end{failed}},
		{name: "CONTINUATION, small headers", flood: func(s *h2stream) {
			s.raw(http2.FrameHeaders, 0, s.id, 0x88)
			field := []byte(strings.Repeat("\x00\x03x-a\x01v", 2000))
			s.many(2_000, func(fr *http2.Framer) { fr.WriteContinuation(s.id, false, field) })
			s.fin()
		}, want: []end{failed}},
		{name: "headers that unpack to much", flood: func(s *h2stream) { // one large entry of the table, and 16 thousand references to it
			field := []byte{0x40, 0x03, 'x', '-', 'a', 0x7f, 0xa1, 0x1e} // 4000 bytes
			field = append(field, strings.Repeat("v", 4000)...)
			s.raw(http2.FrameHeaders, 0, s.id, append([]byte{0x88}, field...)...)
			s.many(1000, func(fr *http2.Framer) { fr.WriteContinuation(s.id, false, []byte(strings.Repeat("\xbe", 16384))) })
			s.fin()
		}, want: []end{failed}},
		{name: "a header name for every request", flood: func(s *h2stream) {
			fields := []string{":status", "103"}
			for i := range 500 {
				fields = append(fields, fmt.Sprint("x-", i, "-", strings.Repeat("n", 1000)), "v")
			}
			for range 20 {
				s.head(fields...)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newH2Upstream(t)
			over := make(chan struct{})
			up.on("/flooded", func(s *h2stream) {
				s.whole()
				if tt.deaf {
					s.change(func() { s.deaf = over })
				}
				tt.flood(s)
				if s.ok(func() bool { return s.closed }) {
					return
				}
				if tt.name != "empty DATA" {
					s.stream()
				}
				s.finish(event)
			})
			limit := "timeout_secs = 25"
			if tt.deaf { // the flood may well block itself, and the request with it
				limit = "timeout_secs = 3"
			}
			w := newH2World(t, up, limit)
			c := w.post("/flooded", "{}")
			want := tt.want
			if want == nil {
				want = []end{answered, failed}
			}
			got, _ := w.ended(c, want...)
			close(over)
			t.Log(got)
			w.bounded(100)
			w.undisturbed()
		})
	}
}
