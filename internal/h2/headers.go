package h2

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http2/hpack"
)

// names remembers the other spelling of header names, since the same ones come again and again.
type names map[string]string

// names is bounded by maxNames, none longer than maxName: who sends more, or longer ones, pays for it.
const (
	maxNames = 256
	maxName  = 64
)

func (m names) get(name string, spell func(string) string) string {
	spelled, ok := m[name]
	if !ok {
		spelled = spell(name)
		if len(m) < maxNames && len(name) <= maxName {
			m[strings.Clone(name)] = spelled
		}
	}
	return spelled
}

// header makes a header of decoded fields.
func (m names) header(fields []hpack.HeaderField) http.Header {
	h := make(http.Header, len(fields))
	values := make([]string, len(fields)) // one allocation for all the lists of one
	for i, f := range fields {
		name := m.get(f.Name, textproto.CanonicalMIMEHeaderKey)
		if list, ok := h[name]; ok {
			h[name] = append(list, f.Value)
			continue
		}
		values[i] = f.Value
		h[name] = values[i : i+1 : i+1]
	}
	return h
}

// contentLength returns what the header says, -1 if nothing; ok is false if that makes no sense (RFC 9110 section 8.6).
func contentLength(values []string) (n int64, ok bool) {
	if len(values) == 0 {
		return -1, true
	}
	for _, v := range values[1:] {
		if v != values[0] {
			return 0, false
		}
	}
	u, err := strconv.ParseUint(values[0], 10, 63)
	return int64(u), err == nil
}

// announcedTrailers makes the trailer header that net/http's users expect before the body is read: names without values.
func announcedTrailers(lines []string) http.Header {
	trailer := http.Header{}
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name != "" {
				trailer[textproto.CanonicalMIMEHeaderKey(name)] = nil
			}
		}
	}
	return trailer
}
