package faults

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
)

// rules are what the proxy must keep to on one connection (RFC 9113). Limits that we lower bind the proxy from its
// acknowledgement on, those that we raise at once.
type rules struct {
	announced  [][]http2.Setting // SETTINGS that have not been acknowledged
	maxStreams []uint32          // limits in force or announced; the largest counts
	initial    []int64           // initial windows of streams, likewise
	allowed    int64             // what the proxy may send on the connection
	lastStream uint32
	final      bool // the proxy has read a GOAWAY
	lenient    bool // settings were sent that were not announced
}

func newRules() rules {
	return rules{maxStreams: []uint32{math.MaxUint32}, initial: []int64{65535}, allowed: 65535}
}

// announce notes SETTINGS that are being sent.
func (c *h2conn) announce(settings []http2.Setting) {
	c.announced = append(c.announced, settings)
	for _, s := range settings {
		switch s.ID {
		case http2.SettingMaxConcurrentStreams:
			c.maxStreams = append(c.maxStreams, s.Val)
		case http2.SettingInitialWindowSize:
			if raise := int64(s.Val) - slices.Max(c.initial); raise > 0 {
				c.resize(raise)
			}
			c.initial = append(c.initial, int64(s.Val))
		case http2.SettingHeaderTableSize:
			c.decoder.SetAllowedMaxDynamicTableSize(max(s.Val, 4096))
		}
	}
}

// acknowledged makes the oldest announced settings the only ones in force.
func (c *h2conn) acknowledged() {
	if len(c.announced) == 0 {
		if c.lenient {
			return
		}
		c.foul("it acknowledges settings that were not sent")
		return
	}
	settings := c.announced[0]
	c.announced = c.announced[1:]
	for _, s := range settings {
		switch s.ID {
		case http2.SettingMaxConcurrentStreams:
			c.maxStreams = c.maxStreams[1:]
		case http2.SettingInitialWindowSize:
			before := slices.Max(c.initial)
			c.initial = c.initial[1:]
			c.resize(slices.Max(c.initial) - before)
		case http2.SettingHeaderTableSize:
			if s.Val < 4096 {
				c.decoder.SetMaxDynamicTableSize(s.Val) // a reference to what is gone is an error from now on
			}
		}
	}
}

func (c *h2conn) resize(by int64) {
	for _, s := range c.streams {
		s.mayReceive += by
	}
}

// allow notes a window that is being granted.
func (c *h2conn) allow(stream uint32, n int) {
	if stream == 0 {
		c.allowed += int64(n)
	} else if s := c.streams[stream]; s != nil {
		s.mayReceive += int64(n)
	}
}

// foul fails the test: the proxy has broken the protocol.
func (c *h2conn) foul(format string, args ...any) {
	c.up.t.Errorf("connection %d: the proxy breaks the rules of HTTP/2: "+format, append([]any{c.nth}, args...)...)
}

// read reads the connection to its end.
func (c *h2conn) read() {
	err := c.readPreface()
	for err == nil {
		c.mu.Lock()
		deaf := c.deaf
		c.mu.Unlock()
		if deaf != nil {
			select {
			case <-deaf:
			case <-c.up.closing:
			}
		}
		var frame http2.Frame
		if frame, err = c.in.ReadFrame(); err == nil {
			c.change(func() { c.judge(frame) })
		}
	}
	var inStream http2.StreamError
	var inConnection http2.ConnectionError
	if errors.As(err, &inStream) || errors.As(err, &inConnection) || errors.Is(err, http2.ErrFrameTooLarge) {
		c.foul("%v (%v)", err, c.in.ErrorDetail())
	}
	c.change(func() { c.end = err })
}

func (c *h2conn) readPreface() error {
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(c.tls, preface); err != nil {
		return err
	}
	if string(preface) != http2.ClientPreface {
		c.foul("it begins with %q", preface)
	}
	frame, err := c.in.ReadFrame()
	if err != nil {
		return err
	}
	settings, ok := frame.(*http2.SettingsFrame)
	if !ok || settings.IsAck() {
		c.foul("its first frame is %v", frame)
		return nil
	}
	if push, ok := settings.Value(http2.SettingEnablePush); !ok || push != 0 {
		c.foul("it lets the upstream push")
	}
	c.change(func() { c.judge(frame) })
	return nil
}

// judge notes a frame of the proxy and looks for what is wrong with it.
func (c *h2conn) judge(frame http2.Frame) {
	id := frame.Header().StreamID
	switch f := frame.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			c.acknowledged()
			return
		}
		c.obey(f)
	case *http2.PingFrame:
		if f.IsAck() {
			c.pongs[binary.BigEndian.Uint64(f.Data[:])] = true
		} else if data := f.Data; !c.up.noAck {
			c.say(func(fr *http2.Framer) { fr.WritePing(true, data) })
		}
	case *http2.GoAwayFrame:
		c.goneAway = f
	case *http2.WindowUpdateFrame:
		if id == 0 {
			c.window += int64(f.Increment)
			c.granted = max(c.granted, c.window)
		} else if s := c.existing(id, frame); s != nil {
			s.maySend += int64(f.Increment)
		}
		if c.window > math.MaxInt32 {
			c.foul("it grants a window of %d bytes", c.window)
		}
	case *http2.RSTStreamFrame:
		if s := c.existing(id, frame); s != nil {
			code := f.ErrCode
			s.cancelled = &code
		}
	case *http2.MetaHeadersFrame:
		if s := c.streams[id]; s != nil {
			c.foul("it sends trailers, or headers twice, on stream %d: %v", id, f)
			return
		}
		c.begin(f)
	case *http2.DataFrame:
		c.receive(f)
	case *http2.PushPromiseFrame, *http2.ContinuationFrame:
		c.foul("it sends %v", frame)
	}
}

// say has something written without waiting for it.
func (c *h2conn) say(frame func(*http2.Framer)) {
	select {
	case c.control <- frame:
	default:
		c.foul("it floods us with frames that want an answer")
	}
}

// obey notes the proxy's settings.
func (c *h2conn) obey(f *http2.SettingsFrame) {
	f.ForeachSetting(func(s http2.Setting) error {
		switch s.ID {
		case http2.SettingInitialWindowSize:
			for _, stream := range c.streams {
				stream.maySend += int64(s.Val) - c.streamWindow
			}
			c.streamWindow = int64(s.Val)
		case http2.SettingMaxFrameSize:
			c.maxFrame = int(s.Val)
		}
		return nil
	})
	table, limited := f.Value(http2.SettingHeaderTableSize)
	c.say(func(fr *http2.Framer) {
		if limited {
			c.encoder.SetMaxDynamicTableSizeLimit(min(table, 4096))
		}
		if !c.up.noAck {
			fr.WriteSettingsAck()
		}
	})
}

func (c *h2conn) existing(id uint32, frame http2.Frame) *h2stream {
	s := c.streams[id]
	if s == nil {
		c.foul("%v is for a stream that was never opened", frame)
	}
	return s
}

// begin notes a new request and starts its script.
func (c *h2conn) begin(f *http2.MetaHeadersFrame) {
	id := f.StreamID
	if id%2 == 0 || id <= c.lastStream {
		c.foul("it opens stream %d after stream %d", id, c.lastStream)
	}
	c.lastStream = id
	if c.final {
		c.foul("it opens stream %d after it has read a GOAWAY", id)
	}
	open := uint32(0)
	for _, s := range c.streams {
		if s.cancelled == nil && !(s.closed && s.complete) && !s.abandoned {
			open++
		}
	}
	if limit := slices.Max(c.maxStreams); open >= limit {
		c.foul("it has %d streams open and opens another; the limit is %d", open, limit)
	}
	s := &h2stream{
		h2conn: c, id: id, fields: slices.Clone(f.Fields), path: f.PseudoValue("path"), complete: f.StreamEnded(),
		mayReceive: slices.Max(c.initial), maySend: c.streamWindow,
	}
	names := []string{}
	for _, field := range f.Fields {
		names = append(names, field.Name)
		switch field.Name {
		case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te", "host":
			c.foul("it sends the header %q", field.Name)
		}
		if strings.Contains(field.Name, smuggled) {
			c.foul("it sends the header %q, which no client sent as one", field.Name)
		}
	}
	if host := f.PseudoValue("authority"); host != c.up.listener.Addr().String() {
		c.foul("stream %d is for %q", id, host)
	}
	for _, pseudo := range []string{":method", ":scheme", ":path", ":authority"} {
		if !slices.Contains(names, pseudo) {
			c.foul("stream %d has no %s: %v", id, pseudo, names)
		}
	}
	c.streams[id] = s
	c.measure(s)
	c.up.accept(s)
}

// receive notes a piece of a request's body.
func (c *h2conn) receive(f *http2.DataFrame) {
	s := c.existing(f.StreamID, f)
	if s == nil {
		return
	}
	n := int64(f.Length) // padding counts
	if s.complete || s.cancelled != nil {
		c.foul("it sends DATA on stream %d after it has ended it", s.id)
	}
	s.mayReceive -= n
	c.allowed -= n
	if s.mayReceive < 0 && n > 0 {
		c.foul("it sends %d bytes on stream %d, %d more than the window", n, s.id, -s.mayReceive)
	}
	if c.allowed < 0 && n > 0 {
		c.foul("it sends %d bytes, %d more than the connection's window", n, -c.allowed)
	}
	s.body.Write(f.Data())
	s.complete = f.StreamEnded()
	c.measure(s)
	if c.up.tight || n == 0 {
		return
	}
	c.allow(0, int(n))
	c.allow(s.id, int(n))
	id, ended := s.id, s.complete
	c.say(func(fr *http2.Framer) {
		fr.WriteWindowUpdate(0, uint32(n))
		if !ended {
			fr.WriteWindowUpdate(id, uint32(n))
		}
	})
}

// measure compares a complete body with its declared length.
func (c *h2conn) measure(s *h2stream) {
	declared := s.field("content-length")
	if !s.complete || declared == "" {
		return
	}
	if n, err := strconv.Atoi(strings.TrimSpace(declared)); err != nil || n != s.body.Len() {
		c.foul("stream %d has %d bytes and says content-length %q", s.id, s.body.Len(), declared)
	}
}
