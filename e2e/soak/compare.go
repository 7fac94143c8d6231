package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// comparison is a counter of the proxy beside what the clients have counted.
type comparison struct {
	what string
	got  int
	want interval
}

func (c comparison) agrees() bool { return c.want.low <= c.got && c.got <= c.want.high }

func (i interval) String() string {
	if i.low == i.high {
		return fmt.Sprint(i.low)
	}
	return fmt.Sprintf("%d to %d", i.low, i.high)
}

// comparisons are all counters that the clients know of: c is what /metrics shows, served and errors are from /health, logged
// is the number of requests in the log.
func (t *tally) comparisons(c counters, served, errors, logged int) []comparison {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []comparison
	metric := func(name, labels string, want interval) {
		what := name
		if labels != "" {
			what += "{" + labels + "}"
		}
		list = append(list, comparison{what, c.sum("proxy_"+name, labels), want})
	}

	var all interval
	for method, want := range t.requests {
		metric("requests_total", fmt.Sprintf("method=%q", method), *want)
		all.low, all.high = all.low+want.low, all.high+want.high
	}
	for a, want := range t.answers {
		metric("requests_total", fmt.Sprintf("method=%q,status=\"%d\"", a.method, a.status), *want)
	}
	metric("requests_total", "", all)

	var ours interval
	for kind, status := range map[string]int{"invalid_request": http.StatusBadRequest, "connection": http.StatusBadGateway, "timeout": http.StatusGatewayTimeout} {
		var want interval
		if seen := t.own[status]; seen != nil {
			want = *seen
		}
		metric("upstream_errors_total", fmt.Sprintf("error_type=%q", kind), want)
		ours.low, ours.high = ours.low+want.low, ours.high+want.high
	}
	metric("upstream_retries_total", "", t.retries)
	metric("streams_total", `outcome="idle_timeout"`, t.silent)
	metric("streams_total", `outcome="drained"`, interval{})
	slices.SortFunc(list, func(a, b comparison) int { return strings.Compare(a.what, b.what) })
	return append(list,
		comparison{"requests_served of /health", served, all},
		comparison{"errors_total of /health", errors, ours},
		comparison{"finished requests in the log", logged, all})
}
