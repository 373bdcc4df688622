package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lmittmann/tint"
)

// NewLogger makes the process's logger: a JSON object a line, or, for people, a coloured line of text. isTerminal says
// whether w is a terminal, which decides what format "auto" means and whether text has colours. Whatever is logged, one
// record is one line. Text is safe to look at: what came from outside cannot move the cursor or imitate another line. JSON
// is for machines: it escapes what JSON must and no more.
func NewLogger(cfg LogConfig, w io.Writer, isTerminal bool) (*slog.Logger, error) {
	level, ok := cfg.level()
	if !ok {
		return nil, fmt.Errorf("unknown log level %q", cfg.Level)
	}
	switch {
	case cfg.Format == "json", cfg.Format == "auto" && !isTerminal:
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})), nil
	case cfg.Format == "text", cfg.Format == "auto":
		return slog.New(tint.NewTextHandler(w, &tint.Options{
			Level:       level,
			TimeFormat:  time.DateTime,
			NoColor:     !isTerminal,
			ReplaceAttr: escapeAttr,
		})), nil
	default:
		return nil, fmt.Errorf("unknown log format %q", cfg.Format)
	}
}

// escapeAttr makes an attribute safe for a terminal. tint alone is not: it writes messages as they are, with colours it
// turns `\x1b` in a quoted value (also one that came in as these four letters) into an escape character, and without
// colours it cuts a value at the first byte that is not UTF-8. It quotes byte slices faithfully, so that is what
// doubtful text becomes.
func escapeAttr(groups []string, a slog.Attr) slog.Attr {
	a.Key = escape(a.Key)
	text, ok := text(a.Value)
	switch {
	case !ok:
	case len(groups) == 0 && a.Key == slog.MessageKey: // is never quoted
		a.Value = slog.StringValue(escape(text))
	case plain(text):
		a.Value = slog.StringValue(text) // the text that was looked at, not a value that may print otherwise
	default:
		a.Value = slog.AnyValue([]byte(text))
	}
	return a
}

// text gives the text of a value that may hold any. Levels must stay what they are, for tint to colour them.
func text(v slog.Value) (_ string, ok bool) {
	switch v.Kind() {
	case slog.KindString:
		return v.String(), true
	case slog.KindAny:
		switch v := v.Any().(type) {
		case slog.Level, *slog.Source, []byte:
			return "", false
		default:
			return fmt.Sprintf("%+v", v), true // as tint does; fmt survives a panicking Error or String
		}
	default:
		return "", false
	}
}

// plain tells whether tint shows s as it is, or quoted and otherwise as it is.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.Contains(s, `\x1b`) &&
		strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

func escape(s string) string {
	if plain(s) {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\x1b`, `\u001b`)
}
