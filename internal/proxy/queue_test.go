package proxy_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/internal/proxy"
)

// blocked is a request whose upstream waits for the test before it answers.
type blocked struct {
	name string // the request's body or, if that is empty, its path
	step chan string
	gone chan struct{} // closed when the request is cancelled
}

// send writes text to the response, or fails if the request is over.
func (b *blocked) send(t *testing.T, text string) {
	t.Helper()
	select {
	case b.step <- text:
	case <-b.gone:
		t.Fatal("the request was cancelled before its response began: the timeout was too short for this machine, or the proxy gave up early")
	case <-time.After(patience):
		t.Fatal("the response is stuck")
	}
}

// blockingHandler is an upstream that answers when the test says so. It writes and flushes each text sent to step. Closing step ends the
// response.
func blockingHandler() (http.HandlerFunc, <-chan *blocked) {
	arrivals := make(chan *blocked, 100)
	return func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		b := &blocked{name: string(data), step: make(chan string), gone: make(chan struct{})}
		if b.name == "" {
			b.name = r.URL.Path
		}
		defer close(b.gone)
		arrivals <- b
		for {
			select {
			case text, more := <-b.step:
				if !more {
					return
				}
				io.WriteString(w, text)
				http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	}, arrivals
}

// queue is a proxy with one slot, which is taken.
type queue struct {
	*gateway
	arrivals <-chan *blocked
	first    *blocked
	client   *rawClient // whose request it is
}

func newQueue(t *testing.T, changes ...func(*proxy.Options)) *queue {
	handler, arrivals := blockingHandler()
	g := start(t, serveUpstream(t, handler).URL, append(changes, slots(1))...)
	q := &queue{gateway: g, arrivals: arrivals, client: g.dial(t)}
	q.client.post(5, "first")
	q.first = within(t, arrivals, "the first request")
	assert.Equal(t, q.first.name, "first")
	return q
}

// TestQueueOrder covers section 4: more requests than slots wait, in order, each slot being taken until the last byte.
func TestQueueOrder(t *testing.T) {
	t.Parallel()
	q := newQueue(t)
	names := []string{"b", "c", "/d", "e"}
	var clients []*rawClient
	for i, name := range names {
		c := q.dial(t)
		clients = append(clients, c)
		if name == "/d" {
			c.send("GET /d HTTP/1.1\r\nHost: p\r\n\r\n")
		} else {
			c.post(1, name)
		}
		reaches(t, &q.metrics.Queued, "queued", int64(i+1))
	}
	assert.Equal(t, q.metric(t, "proxy_requests_in_flight"), 1.0)
	assert.Equal(t, q.metric(t, "proxy_requests_queued"), 4.0)

	current := q.first
	current.send(t, "some")
	assert.Equal(t, q.client.response("POST").StatusCode, http.StatusOK)
	for i, name := range names {
		select {
		case early := <-q.arrivals:
			t.Fatalf("%s started before the one before it had sent its last byte", early.name)
		default:
		}
		assert.Equal(t, q.metrics.Queued.Load(), int64(len(names)-i), "a slot was freed by a response that had only begun")
		close(current.step)
		current = within(t, q.arrivals, "the next request")
		assert.Equal(t, current.name, name)
		current.send(t, "some")
		assert.Equal(t, clients[i].response("POST").StatusCode, http.StatusOK)
	}
	close(current.step)
	for range len(names) + 1 {
		assert.Equal(t, q.finished(t)["outcome"], "complete")
	}
	assert.Equal(t, q.metrics.InFlight.Load(), int64(0))
}

// TestQueueLeaving covers row 2.8 and section 4: a client that leaves the queue is noticed at once, and never reaches
// the upstream; those behind it move up.
func TestQueueLeaving(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]string{
		"GET": "GET /b HTTP/1.1\r\nHost: p\r\n\r\n", "declared": "POST /b HTTP/1.1\r\nHost: p\r\nContent-Length: 1\r\n\r\nb", "chunked": chunkedHead + "\r\n1\r\nb\r\n0\r\n\r\n",
	} {
		for _, leave := range waysToLeave {
			t.Run(name+", "+leave, func(t *testing.T) {
				t.Parallel()
				q := newQueue(t)
				b, c := q.dial(t), q.dial(t)
				b.send(request)
				reaches(t, &q.metrics.Queued, "queued", 1)
				c.post(1, "c")
				reaches(t, &q.metrics.Queued, "queued", 2)
				b.leave(leave)
				if leave == "half-close" {
					b.closedWithoutAnswer()
				}
				q.ended(t, 499.0, "client_gone", 0.0)
				assert.Equal(t, q.metrics.Queued.Load(), int64(1))
				assert.Equal(t, q.metrics.HeldBytes.Load(), int64(len("first")+len("c")), "the memory of the request that left was not freed")
				close(q.first.step)
				assert.Equal(t, within(t, q.arrivals, "the next request").name, "c")
			})
		}
	}
}
