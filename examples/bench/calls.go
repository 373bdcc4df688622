package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"strings"
	"sync"
)

const (
	secret     = "benchmark-secret"
	recordings = 500 // that go on at the same time; the unit of order
)

// A body is one that Agora sends for an uploaded file, with room for what makes an event one of its own. The numbers have a
// fixed width, so that each body is the template with some bytes replaced.
const (
	bodyStart    = `{"noticeId":"`
	bodyRecorder = `","productId":3,"eventType":31,"notifyMs":1596555315283,"sid":"`
	bodyPayload  = `","payload":{"serviceType":2,"uid":"1001","sequence":1`
	bodyRest     = `,"sendts":1596555315257,"cname":"class-7","details":{"msgName":"uploaded","status":0,"fileList":[{"fileName":"`
	bodySid      = `_class-7.m3u8","trackType":"audio_and_video","uid":"0","mixedAllUser":true,"isPlayable":true,"sliceStartTime":1619172871089}]},"sid":"`
	bodyEnd      = `"}}`
	widthOfID    = 32
	widthOfCount = 9
)

// calls are signed notifications, prepared so that sending one costs a copy. Safe for concurrent use once made.
type calls struct {
	head       []byte // of the request, up to the signature
	body       []byte // template
	notice     int    // where in body the numbers go
	sid        [2]int
	sequence   int
	first      int      // number of the first event
	signatures []string // of each call
	copies     bool     // whether every other call repeats an earlier one
}

// prepare makes n calls with bodies of size bytes. first keeps the events of one measurement apart from those of others.
func prepare(first, n, size int, copies bool) *calls {
	zeros, count := strings.Repeat("0", widthOfID), strings.Repeat("0", widthOfCount)
	c := &calls{first: first, copies: copies, signatures: make([]string, n)}
	fixed := len(bodyStart+bodyRecorder+bodyPayload+bodyRest+bodySid+bodyEnd) + 3*widthOfID + widthOfCount
	var b strings.Builder
	b.WriteString(bodyStart)
	c.notice = b.Len()
	b.WriteString(zeros + bodyRecorder)
	c.sid[0] = b.Len()
	b.WriteString(zeros + bodyPayload)
	c.sequence = b.Len()
	b.WriteString(count + bodyRest + strings.Repeat("x", max(0, size-fixed)) + bodySid)
	c.sid[1] = b.Len()
	b.WriteString(zeros + bodyEnd)
	c.body = []byte(b.String())
	c.head = fmt.Appendf(nil, "POST /ncs HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\nContent-Length: %d\r\nAgora-Signature-V2: ", len(c.body))

	var wg sync.WaitGroup
	workers := runtime.GOMAXPROCS(0)
	for w := range workers {
		wg.Go(func() {
			mac := hmac.New(sha256.New, []byte(secret))
			var body []byte
			for i := w; i < n; i += workers {
				body = c.appendBody(body[:0], i)
				mac.Reset()
				mac.Write(body)
				c.signatures[i] = hex.EncodeToString(mac.Sum(nil))
			}
		})
	}
	wg.Wait()
	return c
}

func (c *calls) len() int { return len(c.signatures) }

// event is the number of the event that call i carries. A copy follows 500 calls after the first, as a resend would.
func (c *calls) event(i int) int {
	if !c.copies {
		return c.first + i
	}
	if i%2 == 1 && i > 1000 {
		return c.first + (i-1)/2 - 250
	}
	return c.first + i/2
}

func (c *calls) appendBody(to []byte, i int) []byte {
	start, n := len(to), c.event(i)
	to = append(to, c.body...)
	body := to[start:]
	digits(body[c.notice:c.notice+widthOfID], n)
	for _, at := range c.sid {
		digits(body[at:at+widthOfID], n%recordings)
	}
	digits(body[c.sequence:c.sequence+widthOfCount], n/recordings)
	return to
}

// appendRequest appends call i as it goes over the wire.
func (c *calls) appendRequest(to []byte, i int) []byte {
	to = append(to, c.head...)
	to = append(to, c.signatures[i]...)
	to = append(to, "\r\n\r\n"...)
	return c.appendBody(to, i)
}

// digits writes n into field, from its end.
func digits(field []byte, n int) {
	for i := len(field) - 1; n > 0; i-- {
		field[i] = byte('0' + n%10)
		n /= 10
	}
}
