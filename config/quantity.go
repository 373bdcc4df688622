package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

var (
	errDuration = errors.New("is not a duration")
	errSize     = errors.New("is not a size")
	errUnit     = errors.New("has no unit")
	errNegative = errors.New("is negative")
	errRange    = errors.New("is too large")
)

// parseDuration reads durations as time.ParseDuration does, and days, which come first: 14d, 1d12h. A number without a
// unit is refused, since its writer and its reader may think of different units.
func parseDuration(text string) (time.Duration, error) {
	if text == "0" {
		return 0, nil
	}
	if strings.HasPrefix(text, "-") {
		return 0, errNegative
	}
	if text != "" && strings.Trim(text, "0123456789.") == "" {
		return 0, errUnit
	}
	var days time.Duration
	if number, rest, found := strings.Cut(text, "d"); found {
		n, err := strconv.ParseUint(number, 10, 64)
		switch {
		case errors.Is(err, strconv.ErrRange), err == nil && n > math.MaxInt64/uint64(24*time.Hour):
			return 0, errRange
		case err != nil:
			return 0, errDuration
		}
		days, text = time.Duration(n)*24*time.Hour, rest
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil, d < 0:
		return 0, errDuration
	case days > math.MaxInt64-d:
		return 0, errRange
	}
	return days + d, nil
}

// size prints as a file gives it.
type size int64

func (s size) String() string { return printSize(int64(s)) }

var sizeUnits = map[string]int64{
	"": 1, "B": 1,
	"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
}

// parseSize reads a number of bytes: 512, 64KiB, 20GB.
func parseSize(text string) (int64, error) {
	if strings.HasPrefix(text, "-") {
		return 0, errNegative
	}
	number := strings.TrimRight(text, "BKMGTi")
	unit, known := sizeUnits[text[len(number):]]
	n, err := strconv.ParseUint(number, 10, 63)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, errRange
	case err != nil, !known:
		return 0, errSize
	case int64(n) > math.MaxInt64/unit:
		return 0, errRange
	}
	return int64(n) * unit, nil
}
