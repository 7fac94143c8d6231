package config

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/pelletier/go-toml/v2/unstable"
)

// lineNumbers returns the line of every key of a valid TOML document: "proxy.retries", "headers[1].name". go-toml's stable
// interface has lines only for unknown keys, and does not say which inline table such a key is in.
func lineNumbers(data []byte) map[string]int {
	ix := index{lines: map[string]int{}, elements: map[string]int{}}
	ix.Reset(data)
	for section := ""; ix.NextExpression(); {
		if node := ix.Expression(); node.Kind == unstable.KeyValue {
			ix.value(ix.key(section, node), node.Value())
		} else {
			section = ix.key("", node)
		}
	}
	return ix.lines
}

type index struct {
	unstable.Parser
	lines    map[string]int
	elements map[string]int // the number of elements of an array of tables so far
}

func (ix *index) note(path string, line int) {
	if ix.lines[path] == 0 {
		ix.lines[path] = line
	}
}

// key records the key of a node and the tables that contain it, and returns its path.
func (ix *index) key(path string, node *unstable.Node) string {
	for it := node.Key(); it.Next(); {
		line := ix.Shape(it.Node().Raw).Start.Line
		ix.note(path, line) // an array element gets the line of its first key
		path = join(path, string(it.Node().Data))
		ix.note(path, line)
		if node.Kind == unstable.ArrayTable && it.IsLast() {
			ix.elements[path]++
		}
		if n := ix.elements[path]; n > 0 {
			path = fmt.Sprintf("%s[%d]", path, n-1)
			ix.note(path, line)
		}
	}
	return path
}

// value records the keys inside a value.
func (ix *index) value(path string, value *unstable.Node) {
	it := value.Children()
	for i := 0; it.Next(); i++ {
		if value.Kind == unstable.InlineTable {
			ix.value(ix.key(path, it.Node()), it.Node().Value())
		} else {
			element := fmt.Sprintf("%s[%d]", path, i)
			ix.value(element, it.Node())
			ix.note(element, ix.lines[path])
		}
	}
}

var bareKey = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// join returns the path of a key in a table: proxy.retries, but "proxy.retries" if that is one key.
func join(path, key string) string {
	if !bareKey.MatchString(key) {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}
