package ncs_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

// Each fresh body is another event of the same type that happened now, differs in nothing else, and fits the schema.
func TestFreshSamplesAreOtherEventsOfNow(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(time.Now().UnixMilli())
	for _, s := range ncs.Samples() {
		first, second := parse(t, s.Fresh(now)), parse(t, s.Fresh(now))
		require.Equal(t, s.Info, first.Info, s.Name)
		require.NotEqual(t, first.NoticeID, second.NoticeID, s.Name)
		require.Equal(t, now.UnixMilli(), first.NotifyMs, s.Name)
		require.NotEqual(t, s.Identify("x").ID, first.Identify("x").ID, s.Name)
		require.False(t, first.IsTest(), "%s: the relay would not route it", s.Name)
		require.Equal(t, len(s.Facts()), len(first.Facts()), s.Name)
		for i, f := range first.Facts() {
			require.Equal(t, s.Facts()[i].Field, f.Field, "%s: the order stays", s.Name)
		}
		require.NoError(t, compileSchema(t, s.Info.Schema().Document())(s.Fresh(now)), s.Name)
	}
}

func TestFreshSampleKeepsWhatBelongsTogether(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	i := ncs.Builtin().Lookup(3, 40)
	s, ok := i.Sample()
	require.True(t, ok)
	body := s.Fresh(now)
	n := parse(t, body)
	require.NotEqual(t, s.Entity, n.Entity)
	require.Regexp(t, `^\{"noticeId":"[0-9a-f]{32}","notifyMs":1777636800000,"eventType":40,"sid":"`+n.Entity+`","payload":\{"serviceType":1,"uid":"1001",`+
		`"sequence":1,"sendts":1777636799974,"cname":"Testing2",.*"sid":"`+n.Entity+`"\},"productId":3\}$`, string(body))
}
