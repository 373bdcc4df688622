package ncs_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
	"ncs-relay/relay/problem"
)

var overlay = ncs.Overlay{Products: map[string]ncs.ProductText{
	"signaling": {
		ID: 24, Title: "Signaling", Page: "https://example.com/signaling", Entity: "channelName",
		Fields: "channelName string the channel\nuser object? who\nuser.id string|integer",
		Events: map[int]ncs.EventText{
			210: {Name: "message_sent", Category: "message", Means: "A message was sent.", Fields: "text string"},
			211: {Name: "user_gone", Entity: "user.id"},
		},
	},
	"conversational_ai": {Events: map[int]ncs.EventText{1001: {Name: "agent_created", Category: "agent", Entity: "agent_id"}}},
	"cloud_recording":   {Events: map[int]ncs.EventText{120: {Name: "new_thing"}}},
}}

func compiled(t *testing.T, o ncs.Overlay) *ncs.Catalogue {
	t.Helper()
	return o.Catalogue(func(path, message, hint string, values ...any) {
		message, hint = problem.Text(nil, message, hint, values...)
		require.Fail(t, path+": "+message+": "+hint)
	})
}

func TestOverlayNamesWhatComesAfterTheRelease(t *testing.T) {
	t.Parallel()
	c := compiled(t, overlay)
	sent, created := c.Lookup(24, 210), c.Lookup(17, 1001)
	require.Equal(t, []string{"signaling.message_sent", "message", "conversational_ai.agent_created", "agent"},
		[]string{sent.Product + "." + sent.Event, sent.Category, created.Product + "." + created.Event, created.Category})
	require.True(t, sent.Known && created.Known && sent.HasProductName())
	require.Equal(t, "unknown", c.Lookup(24, 211).Category)
	require.Equal(t, "unknown_999", c.Lookup(24, 999).Event)
	require.True(t, c.Lookup(24, 999).HasProductName())
	require.Equal(t, ncs.Builtin().Lookup(3, 31), c.Lookup(3, 31))
	require.False(t, ncs.Builtin().Lookup(24, 210).Known, "the built-in catalogue stays as it is")
	require.Len(t, c.Types(), len(ncs.Builtin().Types())+4)
	require.Contains(t, c.ProductNames(), "signaling")

	for _, name := range []string{"message_sent", "signaling.message_sent", "signaling.210", "unknown_210", "unknown_24.unknown_210"} {
		s, err := c.ParseEvent(nil, name)
		require.NoError(t, err, name)
		require.True(t, s.Matches(sent), name)
		require.False(t, s.Matches(created), name)
	}
	_, err := ncs.Builtin().ParseEvent(nil, "message_sent")
	require.Error(t, err)
}

// A name must not make another event of a copy, nor change the order where no entity is given.
func TestOverlayChangesNamesAndEntitiesButNoIdentity(t *testing.T) {
	t.Parallel()
	c := compiled(t, overlay)
	for body, entity := range map[string]string{
		`{"noticeId":"a","productId":24,"eventType":210,"payload":{"channelName":"room","user":{"id":7}}}`:                        "room",
		`{"noticeId":"b","productId":24,"eventType":211,"payload":{"channelName":"room","user":{"id":7},"user":{"id":8}}}`:        "8",
		`{"noticeId":"c","productId":24,"eventType":211,"payload":{"channelName":"room","user":"nobody"}}`:                        "room",
		`{"noticeId":"d","productId":17,"eventType":1001,"payload":{"agent_id":"ä\n"}}`:                                           "ä\n",
		`{"noticeId":"e","productId":17,"eventType":1001,"payload":[1]}`:                                                          "",
		`{"noticeId":"f","productId":3,"eventType":120,"payload":{"sid":"s","sequence":1,"sendts":1596555306257,"cname":"room"}}`: "s",
	} {
		n, err := c.Parse([]byte(body))
		require.NoError(t, err, body)
		require.Equal(t, entity, n.Entity, body)
		plain, err := ncs.Builtin().Parse([]byte(body))
		require.NoError(t, err, body)
		require.Equal(t, plain.Identify("s"), n.Identify("s"), body)
	}
	_, err := c.Parse([]byte(`{"productId":24,"eventType":210,"payload":{"channelName":"room"}}`))
	require.ErrorContains(t, err, ncs.ReasonNoNoticeID)
}

func TestOverlayIsExplained(t *testing.T) {
	t.Parallel()
	c := compiled(t, overlay)
	i := c.Lookup(24, 210)
	x := i.Explain()
	require.Equal(t, []string{"Signaling", "A message was sent.", "https://example.com/signaling"}, []string{x.Title, x.Means, x.Page})
	valid := compileSchema(t, ncs.SchemaOf(c.Types()))
	require.NoError(t, valid([]byte(`{"noticeId":"a","productId":24,"eventType":210,"payload":{"channelName":"c","text":"t","user":{"id":1},"new":1}}`)))
	require.Error(t, valid([]byte(`{"noticeId":"a","productId":24,"eventType":210,"payload":{"channelName":"c","text":1}}`)))
	require.Error(t, valid([]byte(`{"noticeId":"a","productId":24,"eventType":210,"payload":{"text":"t"}}`)))
	require.Equal(t, "Conversational AI Engine", c.Lookup(17, 1001).Explain().Title)
	require.Empty(t, c.Lookup(17, 1001).Explain().Fields, "what its product's other events have is not known of it")
	require.True(t, i.HasChannel() && i.HasServiceType() && c.Lookup(7, 1).HasChannel() == false)
	_, ok := i.Sample()
	require.False(t, ok)
}
