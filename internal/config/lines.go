package config

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// entry is a key of a TOML document ("proxy.retries", "headers[1].name") and the line it stands on.
type entry struct {
	key  string
	line int
}

// bareKey is a key that TOML takes without quotes.
var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// index lists the keys of a valid TOML document in their order. Decoding alone would report the first wrong value only,
// and a value that decodes well but is out of range would have lost its line.
func index(data []byte) []entry {
	ix := indexer{elements: map[string]int{}}
	ix.parser.Reset(data)
	for ix.parser.NextExpression() {
		node := ix.parser.Expression()
		switch node.Kind {
		case unstable.Table:
			ix.section = ix.add("", node)
		case unstable.ArrayTable:
			name, line := ix.name("", node)
			ix.section = fmt.Sprintf("%s[%d]", name, ix.elements[name])
			ix.elements[name]++
			ix.entries = append(ix.entries, entry{ix.section, line})
		case unstable.KeyValue:
			ix.keyValue(ix.section, node)
		}
	}
	return ix.entries
}

type indexer struct {
	parser   unstable.Parser
	section  string         // the table that key-value lines belong to
	elements map[string]int // how many elements an array of tables has by now
	entries  []entry
}

func (ix *indexer) keyValue(section string, node *unstable.Node) {
	key := ix.add(section, node)
	switch value := node.Value(); value.Kind {
	case unstable.InlineTable:
		ix.inlineTable(key, value)
	case unstable.Array:
		line := ix.entries[len(ix.entries)-1].line // an element has no key, and so no place of its own; its first key has
		for i, it := 0, value.Children(); it.Next(); i++ {
			if it.Node().Kind == unstable.InlineTable {
				element := fmt.Sprintf("%s[%d]", key, i)
				if first := it.Node().Child(); first != nil && first.Valid() {
					_, line = ix.name("", first)
				}
				ix.entries = append(ix.entries, entry{element, line})
				ix.inlineTable(element, it.Node())
			}
		}
	}
}

func (ix *indexer) inlineTable(key string, table *unstable.Node) {
	for it := table.Children(); it.Next(); {
		ix.keyValue(key, it.Node())
	}
}

func (ix *indexer) add(section string, node *unstable.Node) string {
	name, line := ix.name(section, node)
	ix.entries = append(ix.entries, entry{name, line})
	return name
}

func (ix *indexer) name(section string, node *unstable.Node) (string, int) {
	var parts []string
	if section != "" {
		parts = append(parts, section)
	}
	line := 0
	for it := node.Key(); it.Next(); {
		if line == 0 {
			line = ix.parser.Shape(it.Node().Raw).Start.Line
		}
		part := string(it.Node().Data)
		if !bareKey.MatchString(part) {
			part = strconv.Quote(part) // "proxy.retries" is not proxy.retries
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "."), line
}
