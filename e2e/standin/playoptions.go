package standin

import (
	"flag"
	"fmt"
	"hash/crc32"
	"net/url"
	"strings"
	"time"
)

// PartPath is the path of requests whose query says what the stand-in does, as in
//
//	POST /play?events=40&every=25ms&end=cut
//
// It accepts any method and any body, and stores nothing. It requires only the OAuth beta flag, exactly once. It is for load, and for
// tests that do not depend on the API's rules.
const PartPath = "/play"

// Part says what the stand-in does. The zero Part reads the body and answers with its Receipt.
type Part struct {
	Name   string        // see Server.Await
	Stalls int           // how many attempts with that name are never answered
	Early  bool          // the answer does not wait for the body
	Rate   int64         // bytes a second at which it reads the body; shared by all such bodies
	Delay  time.Duration // before the answer
	Status int           // of the answer; 0 means 200

	Size int64 // bytes of an answer that is not a stream; 0 means a Receipt

	Events int           // of a stream
	Every  time.Duration // between two of them
	Text   int           // bytes of text in each
	Paced  bool          // one event, and then one more at each Server.Tick

	End string // Whole, Cut, Hang or Hold: what happens after the events, or instead of an answer
}

// How an answer ends.
const (
	Whole = ""
	Cut   = "cut"  // the connection (HTTP/1.1) or the stream (HTTP/2) breaks off
	Hang  = "hang" // nothing more is sent
	Hold  = "hold" // until Server.Release only one event every Part.Every is sent
)

// flags defines how a Part is written in a query.
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

// String returns the path and query of a request for the Part.
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
	return p, fmt.Errorf("end=%s: want cut, hang, hold or nothing", p.End)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Receipt is the answer to a Part without Size: the size and checksum of the body that arrived.
func Receipt(size int64, sum uint32) string {
	return fmt.Sprintf(`{"type":"receipt","bytes":%d,"crc32c":"%08x"}`+"\n", size, sum)
}

// ReceiptFor is the Receipt for a body that arrives unchanged.
func ReceiptFor(body []byte) string {
	return Receipt(int64(len(body)), crc32.Checksum(body, castagnoli))
}

// block is repeated in answers with a Size. It consists of short lines that end in CRLF.
var block = []byte(strings.Repeat("0123456789"+strings.Repeat("0123456789abcdef", 4)+"line\r\n", 64<<10/80))

// Content returns the bytes of an answer with a Size from an offset to the end of a block.
func Content(offset int64) []byte { return block[offset%int64(len(block)):] }
