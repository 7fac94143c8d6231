package faults

import (
	"fmt"
	"testing"

	"gotest.tools/v3/assert"
)

// The same for sure: the client has left when the upstream says that the last byte was the last.
func TestDeliveredBeforeTheEnd(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	left := make(chan struct{})
	up.on("/answer", func(s *h2stream) {
		s.whole()
		s.head(":status", "200", "content-length", fmt.Sprint(len(event)))
		s.send(event)
		s.pause(left)
		s.finish("")
	})
	w := watch(t, up)
	c := w.open("/answer")
	c.Close()
	logged := w.logged("/answer")
	close(left)
	assert.Equal(t, logged["outcome"], "complete")
	w.book(logged)
	w.undisturbed()
}
