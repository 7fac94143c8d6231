package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
)

// metric is what a figure says.
type metric struct {
	Name string
	Unit string
	// OverDirect says that the figure of interest is what is added to the figure without a proxy.
	OverDirect bool
}

type reading struct {
	Metric metric
	Value  float64
}

// sample is a reading, and where it comes from.
type sample struct {
	Measure   string
	Contender string
	Round     int
	reading
}

// samples holds all samples, and adds new ones to a file if it has one.
type samples struct {
	all  []sample
	file *os.File
}

// loadSamples reads the file's samples, if it exists.
func loadSamples(name string) (*samples, error) {
	if name == "" {
		return &samples{}, nil
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	s := &samples{file: file}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var one sample
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		s.all = append(s.all, one)
	}
	return s, nil
}

func (s *samples) add(measure, contender string, round int, readings []reading) error {
	for _, r := range readings {
		one := sample{measure, contender, round, r}
		s.all = append(s.all, one)
		if s.file == nil {
			continue
		}
		line, err := json.Marshal(one)
		if err != nil {
			return err
		}
		if _, err := s.file.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// nextRound returns the first number of a round that the measure has no samples of.
func (s *samples) nextRound(measure string) int {
	next := 0
	for _, one := range s.all {
		if one.Measure == measure {
			next = max(next, one.Round+1)
		}
	}
	return next
}
