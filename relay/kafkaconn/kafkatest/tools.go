package kafkatest

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Record is a record as Apache's console consumer prints it.
type Record struct {
	Partition int
	Offset    int64
	Timestamp int64 // ms since 1970, as the producer set it
	Headers   []Header
	Key       []byte // nil = no key
	Value     []byte
}

// Header is one header of a record.
type Header struct{ Key, Value string }

// Header returns the value of the first header called key; "" = none.
func (r *Record) Header(key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return h.Value
		}
	}
	return ""
}

// Separators of what the console consumer prints; values are bytes, so these must not be in them.
const (
	fieldSeparator  = "<#field#>"
	headerSeparator = "<#header#>"
	recordSeparator = "<#record#>"
	noValue         = "<#none#>"
)

// Consume reads all records of a topic with Apache's console consumer.
func (c *Cluster) Consume(t testing.TB, topic string) []Record {
	t.Helper()
	total := c.Count(t, topic)
	if total == 0 {
		return nil
	}
	args := []string{"--bootstrap-server", strings.Join(c.Addresses(), ","), "--topic", topic, "--from-beginning",
		"--max-messages", strconv.Itoa(total), "--timeout-ms", "20000"}
	for _, property := range []string{
		"print.timestamp=true", "print.partition=true", "print.offset=true", "print.headers=true", "print.key=true",
		"key.separator=" + fieldSeparator, "headers.separator=" + headerSeparator,
		"line.separator=" + recordSeparator, "null.literal=" + noValue,
	} {
		args = append(args, "--formatter-property", property)
	}
	output := c.tool(t, nil, "org.apache.kafka.tools.consumer.ConsoleConsumer", args...)
	records := make([]Record, 0, total)
	for text := range bytes.SplitSeq(bytes.TrimSuffix(output, []byte(recordSeparator)), []byte(recordSeparator)) {
		record, err := parseRecord(text)
		if err != nil {
			t.Fatalf("console consumer printed %.1000q: %v", text, err)
		}
		records = append(records, record)
	}
	if len(records) != total {
		t.Fatalf("console consumer printed %d of the %d records of topic %s", len(records), total, topic)
	}
	return records
}

func parseRecord(text []byte) (Record, error) {
	var r Record
	fields := bytes.Split(text, []byte(fieldSeparator))
	if len(fields) != 6 {
		return r, fmt.Errorf("%d fields, want 6", len(fields))
	}
	_, err := fmt.Sscanf(string(bytes.Join(fields[:3], []byte(" "))), "CreateTime:%d Partition:%d Offset:%d",
		&r.Timestamp, &r.Partition, &r.Offset)
	if err != nil {
		return r, err
	}
	r.Headers = parseHeaders(string(fields[3]))
	if key := fields[4]; string(key) != noValue {
		r.Key = key
	}
	r.Value = fields[5]
	return r, nil
}

func parseHeaders(text string) []Header {
	if text == "NO_HEADERS" {
		return nil
	}
	var headers []Header
	for header := range strings.SplitSeq(text, headerSeparator) {
		key, value, _ := strings.Cut(header, ":")
		headers = append(headers, Header{key, value})
	}
	return headers
}

// Produce writes one record for each key and value, which must not contain tabs or line ends, with Apache's console
// producer, and so with the partitioner of the Java client.
func (c *Cluster) Produce(t testing.TB, topic string, records [][2]string) {
	t.Helper()
	var input bytes.Buffer
	for _, r := range records {
		fmt.Fprintf(&input, "%s\t%s\n", r[0], r[1])
	}
	c.tool(t, input.Bytes(), "org.apache.kafka.tools.ConsoleProducer",
		"--bootstrap-server", strings.Join(c.Addresses(), ","), "--topic", topic,
		"--reader-property", "parse.key=true", "--reader-property", "key.separator=\t")
}

// tool runs one of Kafka's command line tools and returns what it printed.
func (c *Cluster) tool(t testing.TB, input []byte, class string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), toolTimeout)
	defer cancel()
	var output, errors bytes.Buffer
	command := c.java(ctx, "256m", class, args...)
	command.Stdin, command.Stdout, command.Stderr = bytes.NewReader(input), &output, &errors
	ended, err := start(command)
	if err == nil {
		err = <-ended
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", class, err, errors.Bytes())
	}
	return output.Bytes()
}

// Codec is how the first broker has stored the last batch of the topic's first partition.
func (c *Cluster) Codec(t testing.TB, topic string) string {
	t.Helper()
	segment := filepath.Join(c.brokers[0].dir, "data", topic+"-0", "00000000000000000000.log")
	output := c.tool(t, nil, "org.apache.kafka.tools.DumpLogSegments", "--files", segment)
	_, last, found := strings.Cut(string(output[max(0, bytes.LastIndex(output, []byte("compresscodec: "))):]), "compresscodec: ")
	if !found {
		t.Fatalf("no batch in %s:\n%s", segment, output)
	}
	codec, _, _ := strings.Cut(last, " ")
	return codec
}
