package config

import (
	"fmt"
	"strconv"
)

// key is one key of a section. set stores a value, or returns what would be right.
type key struct {
	name string
	set  func(value any) (wrong string)
}

// text defines a key for a string that check accepts, with its default.
func text(name string, field *string, byDefault string, check func(string) (wrong string)) key {
	*field = byDefault
	return key{name, func(value any) (wrong string) {
		s, ok := value.(string)
		if !ok {
			return "must be a string, not " + show(value)
		}
		if wrong = check(s); wrong == "" {
			*field = s
		}
		return wrong
	}}
}

// number defines a key for a whole number from least to most, with its default.
func number(name string, field *int64, byDefault, least, most int64) key {
	*field = byDefault
	return key{name, func(value any) (wrong string) {
		n, ok := value.(int64)
		if !ok || n < least || n > most {
			return fmt.Sprintf("must be a whole number from %d to %d, not %s", least, most, show(value))
		}
		*field = n
		return ""
	}}
}

// show prints a value as it is written in the file.
func show(value any) string {
	switch v := value.(type) {
	case string:
		return strconv.Quote(v)
	case map[string]any:
		return "a table"
	case []any:
		return "an array"
	}
	return fmt.Sprint(value)
}
