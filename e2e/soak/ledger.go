package main

import (
	"context"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// ledger is where both ends of the proxy meet: the client opens an entry with its plan, the upstream finds it by its name and
// notes what arrives, the client reads that when it is done.
type ledger struct {
	content []byte        // what all bodies and events are cut from
	closing chan struct{} // closed when the load is over: streams come to their proper end

	mu       sync.Mutex
	entries  map[string]*entry
	answered map[string]bool // whose client has had its answer: nothing of them may arrive any more
	resets   []time.Time
	strange  []string // what arrived without belonging to anything
}

// entry is a plan on its way. The ledger's mutex guards it.
type entry struct {
	plan
	opened   time.Time
	arrivals int           // attempts that the upstream has seen
	running  int           // of these, still in its hands
	idle     chan struct{} // closed when running is back to 0, then replaced
	links    []*link
	reset    bool     // a connection it came on was reset
	wrong    []string // what was wrong with what arrived
}

// link is a connection of the proxy to the upstream.
type link struct {
	entries map[*entry]bool
	reset   bool
}

const offsets = mib // at how many places a body or an event's text may begin in content

func newLedger(seed uint64, maxBody int64) *ledger {
	b := &ledger{
		content:  make([]byte, maxBody+2*offsets),
		closing:  make(chan struct{}),
		entries:  map[string]*entry{},
		answered: map[string]bool{},
	}
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b.content {
		b.content[i] = letters[r.IntN(len(letters))]
	}
	return b
}

// hash makes chance of a name.
func hash(name string) uint64 {
	h := fnv.New64a()
	io.WriteString(h, name)
	return h.Sum64()
}

// body is what the request of a plan carries, and text what its nth event does.
func (b *ledger) body(p plan) []byte { return b.content[hash(p.name)%offsets:][:p.size] }

func (b *ledger) eventText(p plan, n int) []byte {
	return b.content[(hash(p.name)+997*uint64(n))%offsets:][:p.text]
}

func (b *ledger) open(p plan) *entry {
	e := &entry{plan: p, opened: time.Now(), idle: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries[p.name] = e
	return e
}

// arrive notes that an attempt has reached the upstream. It returns nil for one that belongs to nobody any more: its client
// has left, or, and that is strange, has had its answer. (From a connection that was reset, a last request may come late.)
func (b *ledger) arrive(name string, l *link) (e *entry, attempt int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e = b.entries[name]
	if e == nil {
		if answered, known := b.answered[name]; (answered || !known) && !l.reset {
			b.strange = append(b.strange, "the upstream received "+name+", whose client was not waiting for an answer")
		}
		return nil, 0
	}
	e.arrivals++
	e.running++
	e.links = append(e.links, l)
	e.reset = e.reset || l.reset
	l.entries[e] = true
	return e, e.arrivals
}

// depart notes that the upstream is done with an attempt.
func (b *ledger) depart(e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.running--; e.running == 0 {
		close(e.idle)
		e.idle = make(chan struct{})
	}
}

func (b *ledger) complain(e *entry, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.wrong = append(e.wrong, what)
}

// markReset notes that a connection is about to be reset: whatever it carries may fail.
func (b *ledger) markReset(l *link) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resets = append(b.resets, time.Now())
	l.reset = true
	for e := range l.entries {
		e.reset = true
	}
}

// released waits until no attempt is in the upstream's hands, and returns false if that does not come to be. Whoever leaves
// expects it at once (contract row 2.8).
func (b *ledger) released(ctx context.Context, e *entry) bool {
	for {
		b.mu.Lock()
		running, idle := e.running, e.idle
		b.mu.Unlock()
		if running == 0 {
			return true
		}
		select {
		case <-idle:
		case <-ctx.Done():
			return false
		}
	}
}

// facts are what the upstream knows of a request when its client is done.
type facts struct {
	arrivals int
	reset    bool     // a connection it came on was reset, or, if it never came, any was in its time
	wrong    []string // see entry
}

func (b *ledger) close(e *entry, answered bool) facts {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.entries, e.name)
	b.answered[e.name] = answered
	for _, l := range e.links {
		delete(l.entries, e)
	}
	f := facts{arrivals: e.arrivals, reset: e.reset, wrong: slices.Clone(e.wrong)}
	if e.arrivals == 0 {
		// The proxy may take a moment to notice that a connection it wants to use is gone.
		f.reset = slices.ContainsFunc(b.resets, e.opened.Add(-time.Second).Before)
	}
	return f
}
