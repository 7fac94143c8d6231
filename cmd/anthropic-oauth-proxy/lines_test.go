package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// sink is a log's reader that takes its time.
type sink struct {
	bytes.Buffer
	writes int
	takes  time.Duration
}

func (s *sink) Write(p []byte) (int, error) {
	time.Sleep(s.takes)
	s.writes++
	return s.Buffer.Write(p)
}

// A line that comes alone is written at once; lines that come together are written together; none is lost.
func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		l := newLines(&s)
		time.Sleep(time.Second)
		start := time.Now()
		l.Write([]byte("first\n"))
		synctest.Wait()
		assert.Equal(t, s.String(), "first\n")
		for range 1000 {
			l.Write([]byte("more\n"))
		}
		l.Close()
		assert.Equal(t, s.String(), "first\n"+strings.Repeat("more\n", 1000))
		assert.Equal(t, s.writes, 2)
		assert.Equal(t, time.Since(start), writeEvery)
		l.Write([]byte("last\n"))
		assert.Assert(t, strings.HasSuffix(s.String(), "last\n"), "after Close a line is written at once")
	})
}

// A reader that stalls holds up neither requests, until a thousand lines wait, nor the program's end.
func TestLinesReaderStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sink{takes: time.Hour}
		l := newLines(&s)
		start := time.Now()
		line := append(bytes.Repeat([]byte("x"), 299), '\n')
		for range 1000 {
			l.Write(line)
			synctest.Wait()
		}
		assert.Equal(t, time.Since(start), time.Duration(0))
		done := make(chan int)
		go func() {
			n := 0
			for ; n < 5000; n++ {
				l.Write(line)
			}
			done <- n
		}()
		synctest.Wait()
		l.mu.Lock()
		waiting := len(l.buf)
		l.mu.Unlock()
		assert.Assert(t, waiting <= maxUnwritten+len(line), "memory is bounded: %d bytes", waiting)
		<-done
		assert.Assert(t, time.Since(start) >= time.Hour, "the reader was waited for")
		at := time.Now()
		l.Close()
		assert.Equal(t, time.Since(at), closeWait)
		time.Sleep(3 * time.Hour) // the writes that are under way
	})
}
