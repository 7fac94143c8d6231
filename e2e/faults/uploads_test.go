package faults

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// Clients that begin an upload and stop delay no small request by more than a second, and nobody for longer than the silence that ends
// them: 30 s, or timeout_secs, if that is less (contract row 1.12, section 1). The bounds are generous.
func TestStalledUploads(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ clients, declared, sent int }{
		{7, 10 << 20, 9 << 20}, // nearly all of the room
		{7, 32 << 20, 100},
		{200, 32 << 20, 300 << 10},
	} {
		t.Run(fmt.Sprintf("%d clients, %d KiB of %d MiB", tt.clients, tt.sent>>10, tt.declared>>20), func(t *testing.T) {
			t.Parallel()
			w := protocols[0].open(t, "timeout_secs = 8")
			var sending sync.WaitGroup
			var stuck []*conn
			for i := range tt.clients {
				c := w.begin("POST", fmt.Sprint("/stuck-", i), fmt.Sprint("Content-Length: ", tt.declared), "")
				sending.Go(func() { io.WriteString(c, upload(tt.sent)) }) // it may have to wait, or be told to go
				stuck = append(stuck, c)
			}
			w.standsAt("proxy_held_body_bytes")
			begun := time.Now()
			w.ended(w.post("/small", upload(1<<20)), answered)
			small := time.Since(begun)
			w.ended(w.post("/big", upload(10<<20)), answered)
			big := time.Since(begun)
			t.Logf("1 MiB took %v, 10 MiB %v", small, big)
			assert.Check(t, small < 5*time.Second, "1 MiB took %v", small)
			assert.Check(t, big < 20*time.Second, "10 MiB took %v", big)
			for _, c := range stuck {
				c.Close()
				w.book(w.logged(c.path))
			}
			sending.Wait()
			w.undisturbed()
		})
	}
}

// standsAt waits until a gauge is above zero and changes no more.
func (w *world) standsAt(gauge string) {
	w.t.Helper()
	var last []float64
	w.until(func(m binary.Metrics) string {
		last = append(last, m[gauge])
		last = last[max(0, len(last)-5):]
		if len(last) == 5 && last[0] > 0 && last[0] == last[4] {
			return ""
		}
		return fmt.Sprintf("%s still changes: %v", gauge, last)
	})
}

// Bodies that are half read, all together more than there is room for, must not wait for each other for ever.
func TestHalfReadUploads(t *testing.T) {
	t.Parallel()
	_, up := newStandin(t, standin.Options{})
	w := newWorld(t, up)
	var bodies [][]byte
	for range 20 {
		bodies = append(bodies, []byte(upload(10<<20)))
	}
	for range 4 {
		bodies = append(bodies, []byte(upload(32<<20)))
	}
	var running sync.WaitGroup
	var failures atomic.Value
	open := make(chan struct{})
	for _, body := range bodies {
		running.Go(func() {
			c := client.New(w.p.URL)
			defer c.Close()
			half := len(body) / 2
			res, err := c.Do(t.Context(), "POST", standin.Part{}.String(), io.MultiReader(bytes.NewReader(body[:half]), gate(open), bytes.NewReader(body[half:])), int64(len(body)))
			if err == nil {
				err = client.Refused(res)
			}
			if err == nil {
				err = client.Check(res.Body, standin.Part{}, body)
				res.Body.Close()
			}
			if err != nil {
				failures.Store(err.Error())
			}
		})
	}
	w.standsAt("proxy_held_body_bytes")
	held := w.scrape()["proxy_held_body_bytes"]
	assert.Check(t, held <= 64<<20, "more is held than there is room for: %v", held)
	close(open)
	running.Wait()
	assert.Assert(t, failures.Load() == nil, "%v", failures.Load())
	w.served(float64(len(bodies)))
	w.bounded(200)
}

// gate is a reader that has nothing, and says so when it is open.
type gate chan struct{}

func (g gate) Read([]byte) (int, error) {
	<-g
	return 0, io.EOF
}
