package main

import (
	"fmt"
	"slices"
	"time"
)

// Whether memory has grown is judged twice.
//
// Each half of the load ends with a lull: no bursts and no waves, so that what they took is collected and given back, and what
// is left is what the streams and single requests need. That must be the same in either half. It needs lulls of a minute; the
// floors of a shorter run are told, but not judged.
//
// After the load, however short, a collection must find as little alive as before it.
const (
	lullShare    = 5 // the last fifth of each half
	shortestRun  = 10 * time.Minute
	memoryMargin = 16 * mib // Go gives memory back in its own time
	heapMargin   = 8 * mib  // some upload is always on its way
	finalMargin  = 8 * mib  // pools, and the tables of what was there
)

// sweep makes the proxy collect: it sends small uploads, one after the other, until there have been three collections. The first
// may have begun too early, and what is pooled lives for two.
func (l load) sweep() {
	const enough = 20000
	until := l.monitor.sample().collections + 3
	for n := range enough {
		if n%20 == 0 && l.monitor.sample().collections >= until {
			return
		}
		l.client.do(l.mix.sweep(fmt.Sprintf("sweep-%d", n)))
	}
	l.monitor.tally.problem("after the load, %d uploads have not made the proxy collect three times", enough)
}

// inLull reports whether a moment of the load is within a lull, and in which half.
func (s settings) inLull(at time.Duration) (half int, lull bool) {
	length := s.length() / 2
	if at >= 2*length {
		return 1, false
	}
	return int(at / length), at%length > length-length/lullShare
}

// floors are the lowest figures of each half's lull.
type floors struct {
	memory, heap [2]int64
}

func (s settings) floors(samples []sample) floors {
	var lulls [2][]sample
	for _, sample := range samples {
		if half, lull := s.inLull(sample.at); lull && sample.memory > 0 && sample.live > 0 { // what could not be read is a problem already
			lulls[half] = append(lulls[half], sample)
		}
	}
	var f floors
	for i, lull := range lulls {
		if len(lull) > 0 {
			f.memory[i] = slices.MinFunc(lull, func(a, b sample) int { return int(a.memory - b.memory) }).memory
			f.heap[i] = slices.MinFunc(lull, func(a, b sample) int { return int(a.live - b.live) }).live
		}
	}
	return f
}

// growth says what has grown from one half to the other.
func (f floors) growth() (problems []string) {
	check := func(what string, halves [2]int64, margin int64) {
		if halves[0] == 0 || halves[1] == 0 {
			problems = append(problems, what+": a lull of the load has no sample")
		} else if halves[1] > halves[0]+margin {
			problems = append(problems, fmt.Sprintf("%s has grown: never below %s MiB in the second lull, %s MiB in the first", what, mebi(halves[1]), mebi(halves[0])))
		}
	}
	check("memory", f.memory, memoryMargin)
	check("the live heap", f.heap, heapMargin)
	return problems
}

func (f floors) String() string {
	return fmt.Sprintf("Floor in the lulls of the first and the second half: memory %s and %s MiB (%d MiB more is no growth), live heap %s and %s MiB (%d).",
		mebi(f.memory[0]), mebi(f.memory[1]), memoryMargin/mib, mebi(f.heap[0]), mebi(f.heap[1]), heapMargin/mib)
}
