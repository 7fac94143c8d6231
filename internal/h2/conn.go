package h2

import (
	"bytes"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// streamWindow is what the peer may send on one stream ahead of a slow reader: HTTP/2's default (RFC 9113 section
	// 6.9.2). A thousand readers that have stopped reading cost 64 MiB.
	streamWindow = 64<<10 - 1
	// connWindow is what it may send on all streams together. It is not meant to limit, or one slow reader would hold up
	// the others.
	connWindow = 1 << 30

	// maxHeaderBytes limits the header section of a response, as RFC 9113 section 6.5.2 counts.
	maxHeaderBytes = 1 << 20

	// bodyAhead is how much of request bodies may wait to be written; more would only be memory.
	bodyAhead = 64 << 10
	// headersAhead is how much may wait to be written before the connection takes no further requests.
	headersAhead = 1 << 20
	// acksAhead is how many answers to PING and SETTINGS may wait before a peer is given up that does not read them.
	acksAhead = 10_000

	// lastWords is how long a connection that is to be closed may take for what is still to be said or heard.
	lastWords = time.Second
)

// conn is one connection. Everything after mu is guarded by it; it is never held while waiting for the network.
type conn struct {
	net      net.Conn
	opts     Options
	onOver   func(*conn) // called once, when no further stream may begin
	wake     chan struct{}
	written  chan struct{} // closed when nothing more will be written
	settings chan struct{} // closed by the peer's first frame, or the connection's end
	reader

	mu       sync.Mutex
	out      bytes.Buffer // frames to be written
	spare    bytes.Buffer
	framer   *http2.Framer // appends to out
	hpack    *hpack.Encoder
	block    bytes.Buffer // what hpack encodes into
	lower    names        // of request headers, as HTTP/2 has them
	streams  map[uint32]*stream
	nextID   uint32
	unsent   uint32 // the first stream whose header section was not yet handed to the network
	acks     int    // in out
	over     error  // why no further stream may begin; nil while it may
	why      error  // what broke the connection, if that is known before it is closed
	leaving  bool
	closed   bool
	window   int64         // what may be sent on all streams together
	changed  chan struct{} // closed and replaced when an upload that waits may go on
	waiting  int           // uploads that wait
	read     time.Time     // when the last frame came
	pinged   time.Time     // when a PING went out that nothing has come since; zero if none
	doubtful bool          // nothing came although it was time; no further streams until something does
	idle     time.Time     // since when there has been no stream
	timer    *time.Timer   // runs tick

	// The peer's settings.
	peerStreams uint32
	peerWindow  int64
	peerFrame   int
}

// newConn begins HTTP/2 on a connection, and returns when the peer has said what it allows.
func newConn(nc net.Conn, opts Options, onOver func(*conn)) (*conn, error) {
	now := time.Now()
	c := &conn{net: nc, opts: opts, onOver: onOver, wake: make(chan struct{}, 1), written: make(chan struct{}), settings: make(chan struct{}),
		lower: names{}, streams: map[uint32]*stream{}, nextID: 1, unsent: 1, changed: make(chan struct{}), read: now, idle: now,
		window: 64<<10 - 1, peerWindow: 64<<10 - 1, peerFrame: 16 << 10, peerStreams: maxStreams}
	c.framer = http2.NewFramer(&c.out, nil)
	c.hpack = hpack.NewEncoder(&c.block)
	c.reader = newReader(nc)
	c.out.WriteString(http2.ClientPreface)
	c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderBytes},
	)
	c.framer.WriteWindowUpdate(0, connWindow-(64<<10-1))
	c.wake <- struct{}{}
	go c.writeLoop()
	go c.readLoop()

	timeout := time.NewTimer(opts.SettingsTimeout)
	defer timeout.Stop()
	select {
	case <-c.settings:
	case <-timeout.C:
		c.fail(ErrDead)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over == nil && c.peerStreams == 0 {
		c.end(ErrNoStreams)
		c.leave(http2.ErrCodeNo)
	}
	if c.over != nil {
		return nil, c.over
	}
	c.timer = time.AfterFunc(opts.PingAfter, c.tick)
	return c, nil
}

// flush makes the writer write what is in out.
func (c *conn) flush() {
	select {
	case c.wake <- struct{}{}:
	default: // it is about to
	}
}

// writeLoop writes what has gathered since it last did: what several requests have to send at once is one write and one TLS
// record.
func (c *conn) writeLoop() {
	defer close(c.written)
	for range c.wake {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return
		}
		c.out, c.spare = c.spare, c.out
		c.unsent = c.nextID
		c.acks = 0
		c.release()
		last := c.leaving
		c.mu.Unlock()
		if _, err := c.net.Write(c.spare.Bytes()); err != nil {
			c.breakOff(err)
			c.net.SetReadDeadline(time.Now().Add(lastWords)) // a GOAWAY may have come: which requests were processed
			return
		}
		if last {
			c.fail(ErrClosed)
			return
		}
		c.spare.Reset()
		if c.spare.Cap() > bodyAhead {
			c.spare = bytes.Buffer{}
		}
	}
}

// release lets the uploads look again whether they may go on.
func (c *conn) release() {
	if c.waiting > 0 {
		close(c.changed)
		c.changed = make(chan struct{})
	}
}

// isOver reports whether no further stream may begin.
func (c *conn) isOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over != nil
}

// mayTake reports whether streams may begin when there is room for them.
func (c *conn) mayTake() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.over == nil && c.peerStreams > 0
}

// end keeps further streams from beginning. The caller holds mu.
func (c *conn) end(why error) {
	if c.over == nil {
		c.over = why
		go c.onOver(c)
	}
}

// breakOff notes why the connection is about to be closed.
func (c *conn) breakOff(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(why)
	if c.why == nil {
		c.why = why
	}
}

// fail closes the connection and ends all its exchanges.
func (c *conn) fail(err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	c.end(err)
	if c.why != nil {
		err = c.why
	}
	for _, s := range c.streams {
		if s.id >= c.unsent {
			c.forget(s, errUnprocessed)
		} else {
			c.forget(s, err)
		}
	}
	c.release()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.flush()
	c.mu.Unlock()
	c.net.Close()
}

// leave has the writer close the connection after a last frame. The caller holds mu.
func (c *conn) leave(code http2.ErrCode) {
	if c.leaving {
		return
	}
	c.leaving = true
	c.end(ErrClosed)
	c.framer.WriteGoAway(0, code, nil)
	c.net.SetWriteDeadline(time.Now().Add(lastWords))
	c.flush()
}

func (c *conn) closeIfIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) == 0 && !c.closed {
		c.leave(http2.ErrCodeNo)
	}
}

// tick asks a silent peer for a sign of life, gives up one that gave none, and closes a connection that nobody uses.
func (c *conn) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	now := time.Now()
	next := c.read.Add(c.opts.PingAfter)
	switch {
	case len(c.streams) == 0 && now.Sub(c.idle) >= c.opts.IdleTimeout:
		c.leave(http2.ErrCodeNo)
		return
	case !c.pinged.IsZero() && now.Sub(c.pinged) >= c.opts.PingTimeout:
		go c.fail(ErrDead)
		return
	case c.pinged.IsZero() && !now.Before(next):
		c.ping(now)
	}
	if !c.pinged.IsZero() {
		next = c.pinged.Add(c.opts.PingTimeout)
	}
	if idle := c.idle.Add(c.opts.IdleTimeout); len(c.streams) == 0 && idle.Before(next) {
		next = idle
	}
	c.timer.Reset(next.Sub(now))
}

// ping asks for a sign of life, which any frame is. The caller holds mu.
func (c *conn) ping(now time.Time) {
	c.pinged = now
	c.framer.WritePing(false, [8]byte{'a', 'l', 'i', 'v', 'e', '?'})
	c.flush()
}

// heard notes that a frame came. The caller holds mu.
func (c *conn) heard() {
	c.read = time.Now()
	c.pinged = time.Time{}
	c.doubtful = false
}
