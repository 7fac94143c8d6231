package binary

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Metrics holds the values of /metrics. The key is the series as it is written there.
type Metrics map[string]float64

// getter opens a connection for every request, so that a scrape does not depend on the one before.
var getter = &http.Client{Timeout: Patience, Transport: &http.Transport{DisableKeepAlives: true}}

// Get reads a whole page. Any status but 200 is an error.
func Get(url string) (string, error) {
	res, err := getter.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.300s", url, res.Status, text)
	}
	return string(text), err
}

// Metrics scrapes the process.
func (p *Process) Metrics() (Metrics, error) {
	text, err := Get(p.URL + "/metrics")
	if err != nil {
		return nil, err
	}
	return ParseMetrics(text)
}

// ParseMetrics reads Prometheus' text format, as far as the binary uses it.
func ParseMetrics(text string) (Metrics, error) {
	m := Metrics{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.LastIndexByte(line, ' ')
		if end < 0 {
			return nil, fmt.Errorf("/metrics has a line that cannot be parsed: %q", line)
		}
		value, err := strconv.ParseFloat(line[end+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("metrics: %q: %w", line, err)
		}
		m[line[:end]] = value
	}
	return m, nil
}

// Sum adds up the series of a metric that have all the given labels, written as name="value".
func (m Metrics) Sum(name string, labels ...string) float64 {
	sum := 0.0
series:
	for series, value := range m {
		family, rest, _ := strings.Cut(series, "{")
		if family != name {
			continue
		}
		for _, label := range labels {
			if !strings.Contains("{"+rest, "{"+label) && !strings.Contains(rest, ","+label) {
				continue series
			}
		}
		sum += value
	}
	return sum
}
