package standin

import (
	"flag"
	"fmt"
	"hash/crc32"
	"net/url"
	"strings"
	"time"
)

// PartPath is where the stand-in does what the request itself asks for in its query, as in
//
//	POST /play?events=40&every=25ms&end=cut
//
// It takes any method and any body, does not keep them, and asks for nothing but the OAuth beta flag, exactly once: it is for
// load, and for tests of what is below the API.
const PartPath = "/play"

// Part is what the stand-in is to do. The zero Part reads the body and answers with what arrived.
type Part struct {
	Name   string        // see Server.Await
	Stalls int           // so many attempts of that name are never answered
	Early  bool          // the answer does not wait for the body
	Rate   int64         // the body is read at so many bytes a second, all such bodies together
	Delay  time.Duration // before the answer
	Status int           // of the answer; 0: 200

	Size int64 // bytes of an answer that is no stream; 0: it tells what arrived

	Events int           // of a stream
	Every  time.Duration // between two of them
	Text   int           // bytes of text in each
	Paced  bool          // there are no further events but those that Server.Tick asks for

	End string // Whole, Cut, Hang or Hold: what comes after the events, or in place of an answer
}

// How an answer ends.
const (
	Whole = ""
	Cut   = "cut"  // the connection (HTTP/1.1) or the stream (HTTP/2) breaks off
	Hang  = "hang" // nothing more comes
	Hold  = "hold" // nothing more comes, but an event every Part.Every, until Server.Release
)

// flags is how a Part is written in a query.
func (p *Part) flags() *flag.FlagSet {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.StringVar(&p.Name, "name", p.Name, "")
	set.IntVar(&p.Stalls, "stalls", p.Stalls, "")
	set.BoolVar(&p.Early, "early", p.Early, "")
	set.Int64Var(&p.Rate, "rate", p.Rate, "")
	set.DurationVar(&p.Delay, "delay", p.Delay, "")
	set.IntVar(&p.Status, "status", p.Status, "")
	set.Int64Var(&p.Size, "size", p.Size, "")
	set.IntVar(&p.Events, "events", p.Events, "")
	set.DurationVar(&p.Every, "every", p.Every, "")
	set.IntVar(&p.Text, "text", p.Text, "")
	set.BoolVar(&p.Paced, "paced", p.Paced, "")
	set.StringVar(&p.End, "end", p.End, "")
	return set
}

// String is the path and query that asks for the Part.
func (p Part) String() string {
	query, zero := url.Values{}, new(Part).flags()
	p.flags().VisitAll(func(f *flag.Flag) {
		if text := f.Value.String(); text != zero.Lookup(f.Name).DefValue {
			query.Set(f.Name, text)
		}
	})
	return strings.TrimSuffix(PartPath+"?"+query.Encode(), "?")
}

func parsePart(query url.Values) (p Part, err error) {
	set := p.flags()
	for name, values := range query {
		for _, value := range values {
			if err := set.Set(name, value); err != nil {
				return p, fmt.Errorf("%s=%s: %w", name, value, err)
			}
		}
	}
	switch p.End {
	case Whole, Cut, Hang, Hold:
		return p, nil
	}
	return p, fmt.Errorf("end=%s: there is no such end", p.End)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Receipt is the answer to a Part without Size: what arrived.
func Receipt(size int64, sum uint32) string {
	return fmt.Sprintf(`{"type":"receipt","bytes":%d,"crc32c":"%08x"}`+"\n", size, sum)
}

// ReceiptFor is the Receipt for a body that arrives as it is.
func ReceiptFor(body []byte) string {
	return Receipt(int64(len(body)), crc32.Checksum(body, castagnoli))
}

// block is what answers with a Size consist of: short lines that end as HTTP's do.
var block = []byte(strings.Repeat("0123456789"+strings.Repeat("0123456789abcdef", 4)+"line\r\n", 64<<10/80))

// Content is what an answer with a Size has at an offset, as far as one block goes.
func Content(offset int64) []byte { return block[offset%int64(len(block)):] }
