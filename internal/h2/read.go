package h2

import (
	"bufio"
	"errors"
	"io"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// reader is what only the read loop uses.
type reader struct {
	frames *http2.Framer
	names  names // of response headers, in their canonical form
	unread int64 // of connWindow: what came and was not yet given back to the peer
	begun  bool  // the peer's settings have come
}

func newReader(nc net.Conn) reader {
	frames := http2.NewFramer(nil, bufio.NewReader(nc))
	frames.ReadMetaHeaders = hpack.NewDecoder(4<<10, nil)
	frames.MaxHeaderListSize = maxHeaderBytes
	frames.SetMaxReadFrameSize(16 << 10) // RFC 9113's default, since our settings name no other
	frames.SetReuseFrames()
	return reader{frames: frames, names: names{}}
}

// readLoop takes the frames as they come, until the connection ends. It waits for nobody: what a reader has not read yet
// stays in its stream.
func (c *conn) readLoop() {
	err := c.readFrames()
	var broken http2.ConnectionError
	switch {
	case err == io.EOF:
		err = ErrClosed
	case errors.Is(err, http2.ErrFrameTooLarge):
		broken = http2.ConnectionError(http2.ErrCodeFrameSize)
	default:
		errors.As(err, &broken)
	}
	if broken != 0 {
		err = ErrMalformed
		c.breakOff(err)
		c.mu.Lock()
		c.leave(http2.ErrCode(broken))
		c.mu.Unlock()
		<-c.written
	}
	c.fail(err)
	if !c.begun {
		close(c.settings)
	}
}

func (c *conn) readFrames() error {
	frame, err := c.frames.ReadFrame()
	var bad http2.StreamError
	if err != nil && !errors.As(err, &bad) {
		return err
	}
	if first, ok := frame.(*http2.SettingsFrame); !ok || first.IsAck() {
		return http2.ConnectionError(http2.ErrCodeProtocol) // RFC 9113 section 3.4
	}
	if err := c.handle(frame); err != nil {
		return err
	}
	c.begun = true
	close(c.settings)
	for {
		frame, err := c.frames.ReadFrame()
		if errors.As(err, &bad) {
			c.mu.Lock()
			c.heard()
			c.reject(bad.StreamID, bad.Code, ErrMalformed)
			c.mu.Unlock()
			continue
		}
		if err != nil {
			return err
		}
		if err := c.handle(frame); err != nil {
			return err
		}
	}
}

// handle returns an http2.ConnectionError if the frame breaks the protocol so that the connection cannot go on.
func (c *conn) handle(frame http2.Frame) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard()
	switch f := frame.(type) {
	case *http2.DataFrame:
		return c.data(f)
	case *http2.MetaHeadersFrame:
		return c.headers(f)
	case *http2.RSTStreamFrame:
		return c.reset(f)
	case *http2.WindowUpdateFrame:
		return c.windowUpdate(f)
	case *http2.SettingsFrame:
		return c.newSettings(f)
	case *http2.GoAwayFrame:
		c.goAway(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			c.framer.WritePing(true, f.Data)
			return c.acknowledged()
		}
	case *http2.PushPromiseFrame: // not allowed by our settings
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil // PRIORITY, and what is unknown, is ignored
}

// acknowledged sends the answer to a PING or SETTINGS that is in out.
func (c *conn) acknowledged() error {
	if c.acks++; c.acks > acksAhead {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	c.flush()
	return nil
}

// find returns the stream of a frame, or nil if it is over already. A stream that never was is the peer's error.
func (c *conn) find(id uint32) (*stream, error) {
	if s := c.streams[id]; s != nil {
		return s, nil
	}
	if id >= c.nextID || id%2 == 0 {
		return nil, http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil, nil
}

// reject ends a stream with an error of ours.
func (c *conn) reject(id uint32, code http2.ErrCode, err error) {
	s := c.streams[id]
	if s == nil {
		return
	}
	c.framer.WriteRSTStream(id, code)
	c.flush()
	c.forget(s, err)
}

func (c *conn) data(f *http2.DataFrame) error {
	length := int64(f.Header().Length) // padding counts (RFC 9113 section 6.9.1)
	if c.unread += length; c.unread >= connWindow/2 {
		c.framer.WriteWindowUpdate(0, uint32(c.unread))
		c.unread = 0
		c.flush()
	}
	s, err := c.find(f.StreamID)
	if s == nil {
		return err
	}
	switch {
	case s.response == nil || s.err != nil:
		c.reject(s.id, http2.ErrCodeProtocol, ErrMalformed)
	case length > s.window:
		c.reject(s.id, http2.ErrCodeFlowControl, ErrMalformed)
	default:
		s.window -= length
		s.receive(f.Data(), int(length), f.StreamEnded())
	}
	return nil
}

func (c *conn) headers(f *http2.MetaHeadersFrame) error {
	s, err := c.find(f.StreamID)
	if s == nil {
		return err
	}
	if s.err != nil || f.Truncated || !c.respond(s, f) {
		c.reject(s.id, http2.ErrCodeProtocol, ErrMalformed)
	}
	return nil
}

func (c *conn) reset(f *http2.RSTStreamFrame) error {
	s, err := c.find(f.StreamID)
	if s == nil {
		return err
	}
	switch {
	case f.ErrCode == http2.ErrCodeRefusedStream && s.response == nil && s.err == nil:
		c.forget(s, errUnprocessed)
	default:
		c.forget(s, &ResetError{f.ErrCode}) // after the whole response this only ends our upload (RFC 9113 section 8.1)
	}
	return nil
}

func (c *conn) goAway(f *http2.GoAwayFrame) {
	c.end(ErrClosed)
	for _, s := range c.streams {
		if s.id > f.LastStreamID && s.response == nil {
			c.forget(s, errUnprocessed)
		}
	}
	if len(c.streams) == 0 {
		c.leave(http2.ErrCodeNo)
	}
}

const maxWindow = 1<<31 - 1 // RFC 9113 section 6.9.1

func (c *conn) windowUpdate(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if c.window += int64(f.Increment); c.window > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
	} else {
		s, err := c.find(f.StreamID)
		if s == nil {
			return err
		}
		if s.peerWindow += int64(f.Increment); s.peerWindow > maxWindow {
			c.reject(s.id, http2.ErrCodeFlowControl, ErrMalformed)
		}
	}
	c.release()
	return nil
}

func (c *conn) newSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingMaxConcurrentStreams:
			c.peerStreams = s.Val
		case http2.SettingMaxFrameSize:
			c.peerFrame = int(s.Val)
		case http2.SettingHeaderTableSize:
			c.hpack.SetMaxDynamicTableSize(min(s.Val, 4<<10))
		case http2.SettingInitialWindowSize:
			for _, stream := range c.streams {
				stream.peerWindow += int64(s.Val) - c.peerWindow // may become negative (RFC 9113 section 6.9.2)
				if stream.peerWindow > maxWindow {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
			c.peerWindow = int64(s.Val)
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.release()
	c.framer.WriteSettingsAck()
	return c.acknowledged()
}
