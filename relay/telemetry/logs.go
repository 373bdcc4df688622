package telemetry

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/lmittmann/tint"
)

// NewLogger makes the process's logger: a JSON object a line, or, for people, a coloured line of text. isTerminal says
// whether w is a terminal, which decides what format "auto" means and whether text has colours; NO_COLOR and TERM=dumb in
// the environment switch these off. Whatever is logged, one record is one line of bounded length, safe to look at: what came from outside cannot move the cursor, turn the direction of
// writing, or imitate another line.
func NewLogger(cfg LogConfig, w io.Writer, isTerminal bool) (*slog.Logger, error) {
	level, ok := cfg.level()
	if !ok {
		return nil, fmt.Errorf("unknown log level %q", cfg.Level)
	}
	switch {
	case cfg.Format == "json", cfg.Format == "auto" && !isTerminal:
		return slog.New(slog.NewJSONHandler(printable{w}, &slog.HandlerOptions{Level: level, ReplaceAttr: clipAttr})), nil
	case cfg.Format == "text", cfg.Format == "auto":
		return slog.New(tint.NewTextHandler(w, &tint.Options{
			Level:       level,
			TimeFormat:  time.DateTime,
			NoColor:     !isTerminal || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb",
			ReplaceAttr: escapeAttr,
		})), nil
	default:
		return nil, fmt.Errorf("unknown log format %q", cfg.Format)
	}
}

// maxValue bounds a value in bytes: an entity, for one, may be as long as a body.
const maxValue = 1 << 10

func clip(s string) string {
	if len(s) <= maxValue {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", strings.ToValidUTF8(s[:maxValue], ""), len(s))
}

func clipAttr(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case string:
		a.Value = slog.StringValue(clip(v))
	case error:
		a.Value = slog.StringValue(clip(fmt.Sprint(v))) // fmt survives an Error that panics
	}
	return a
}

// printable writes lines of JSON, in which whatever cannot be printed becomes an escape. JSON itself asks that of the control
// characters of ASCII only; terminals also obey others.
type printable struct{ io.Writer }

func (w printable) Write(line []byte) (int, error) {
	out := line
	if bytes.ContainsFunc(line, unprintable) {
		out = make([]byte, 0, len(line)+64)
		for _, r := range string(line) {
			switch {
			case !unprintable(r):
				out = utf8.AppendRune(out, r)
			case r > 0xffff:
				high, low := utf16.EncodeRune(r)
				out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
			default:
				out = fmt.Appendf(out, `\u%04x`, r)
			}
		}
	}
	_, err := w.Writer.Write(out)
	return len(line), err
}

func unprintable(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }

// escapeAttr makes an attribute safe for a terminal. tint alone is not: it writes messages as they are, with colours it
// turns `\x1b` in a quoted value (also one that came in as these four letters) into an escape character, and without
// colours it cuts a value at the first byte that is not UTF-8. It quotes byte slices faithfully, so that is what
// doubtful text becomes.
func escapeAttr(groups []string, a slog.Attr) slog.Attr {
	a.Key = escape(a.Key)
	text, ok := text(a.Value)
	text = clip(text)
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

// text returns the text of a value that may hold any. Levels must stay what they are, for tint to colour them.
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

// plain reports whether tint shows s as it is, or quoted and otherwise as it is.
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
