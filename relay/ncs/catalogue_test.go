package ncs_test

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"ncs-relay/relay/ncs"
)

// published are the event types per product that Agora's pages, and for 3-13, 34, 46, 47 their footnotes, name.
var published = map[string][]int{
	"rtc":               {101, 102, 103, 104, 105, 106, 107, 108, 111, 112},
	"cloud_recording":   {1, 2, 3, 4, 11, 12, 13, 30, 31, 32, 33, 34, 40, 41, 42, 43, 44, 45, 46, 47, 60, 61, 70, 71, 72, 73, 80, 81, 90, 100, 110, 111, 112, 113, 1001},
	"media_pull":        {1, 3, 4},
	"media_push":        {1, 2, 3, 4},
	"fusion_cdn":        {1, 2, 3, 4, 5, 6, 7, 11, 101, 102, 103, 106},
	"media_gateway":     {1, 2, 3, 4},
	"conversational_ai": {101, 102, 103, 104, 110, 111, 112, 201, 202},
	"speech_to_text":    {4, 30, 31, 32, 33, 101, 102},
}

func TestCatalogueIsComplete(t *testing.T) {
	t.Parallel()
	got := map[string][]int{}
	names := map[string]bool{}
	all := ncs.Builtin().Types()
	for _, i := range all {
		got[i.Product] = append(got[i.Product], i.EventType)
		require.False(t, names[i.Product+"."+i.Event], i.Event)
		names[i.Product+"."+i.Event] = true
		require.True(t, i.Known)
		require.Equal(t, i, ncs.Builtin().Lookup(i.ProductID, i.EventType))
		for _, slug := range []string{i.Product, i.Event, i.Category} {
			require.Regexp(t, regexp.MustCompile(`^[a-z][a-z0-9_]*$`), slug)
			require.NotRegexp(t, "^unknown", slug)
		}
	}
	require.Empty(t, gocmp.Diff(published, got))
	require.True(t, slices.IsSortedFunc(all, func(a, b ncs.Info) int {
		return cmp.Or(a.ProductID-b.ProductID, a.EventType-b.EventType)
	}))
	all[0].Event = "changed"
	require.NotEqual(t, all[0], ncs.Builtin().Types()[0], "the caller's copy is the caller's")
}

func TestProducts(t *testing.T) {
	t.Parallel()
	want := map[int]string{
		1: "rtc", 2: "media_push_sdk", 3: "cloud_recording", 4: "media_pull", 5: "media_push", 7: "fusion_cdn", 10: "media_gateway",
		17: "conversational_ai", 20: "speech_to_text",
	}
	got := map[int]string{}
	for _, p := range ncs.Builtin().Products() {
		got[p.ID] = p.Name
		id, err := ncs.Builtin().ParseProduct(p.Name)
		require.NoError(t, err)
		require.Equal(t, p.ID, id)
	}
	require.Empty(t, gocmp.Diff(want, got))

	id, err := ncs.Builtin().ParseProduct("unknown_99")
	require.NoError(t, err)
	require.Equal(t, 99, id)
	id, err = ncs.Builtin().ParseProduct("unknown_3") // an alias, in case it was unknown once
	require.NoError(t, err)
	require.Equal(t, 3, id)
	for _, bad := range []string{"", "recording", "Cloud_Recording", "unknown_", "unknown_x", "unknown_-1", "unknown_007", "unknown_99999999999", "3"} {
		_, err := ncs.Builtin().ParseProduct(bad)
		require.Error(t, err, bad)
	}
}

func TestRecordingCategories(t *testing.T) {
	t.Parallel()
	want := map[string][]int{
		"service": {1, 2, 3, 4, 11, 12, 13}, "recorder": {40, 41, 42, 43, 44, 45, 46, 47}, "uploader": {30, 31, 32, 33, 34},
		"extension": {60, 61}, "web_recorder": {70, 71, 72, 73, 100}, "transcoder": {80, 81, 1001}, "download": {90},
		"cloud_transcoder": {110, 111, 112, 113},
	}
	got := map[string][]int{}
	for _, i := range ncs.Builtin().Types() {
		if i.ProductID == 3 {
			got[i.Category] = append(got[i.Category], i.EventType)
		}
	}
	require.Empty(t, gocmp.Diff(want, got))
}

func TestLookupOfUnknownTypes(t *testing.T) {
	t.Parallel()
	require.Equal(t, ncs.Info{ProductID: 3, Product: "cloud_recording", EventType: 999, Event: "unknown_999", Category: "unknown"}, ncs.Builtin().Lookup(3, 999))
	require.Equal(t, ncs.Info{ProductID: 2, Product: "media_push_sdk", EventType: 1, Event: "unknown_1", Category: "unknown"}, ncs.Builtin().Lookup(2, 1))
	require.Equal(t, ncs.Info{ProductID: 6, Product: "unknown_6", EventType: 1, Event: "unknown_1", Category: "unknown"}, ncs.Builtin().Lookup(6, 1))
}

func TestFieldsOfEventTypes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		product, eventType   int
		channel, serviceType bool
	}{
		{1, 101, true, false}, {3, 31, true, true}, {3, 110, false, false}, {3, 999, true, true}, {4, 3, true, false}, {5, 1, true, false},
		{5, 3, false, false}, {7, 1, false, false}, {10, 4, true, false}, {17, 104, true, false}, {20, 101, true, false}, {20, 31, true, true},
		{99, 1, true, true},
	} {
		i := ncs.Builtin().Lookup(test.product, test.eventType)
		require.Equal(t, test.channel, i.HasChannel(), "%+v", i)
		require.Equal(t, test.serviceType, i.HasServiceType(), "%+v", i)
	}
}

func TestParseEvent(t *testing.T) {
	t.Parallel()
	// Beside the catalogue, some types that it does not know.
	universe := ncs.Builtin().Types()
	for _, p := range [][2]int{{1, 46}, {3, 48}, {99, 31}, {99, 46}} {
		universe = append(universe, ncs.Builtin().Lookup(p[0], p[1]))
	}
	for _, test := range []struct {
		products []string
		event    string
		want     []string // "<product>-<type>"
	}{
		{nil, "session_exit", []string{"3-11"}},
		{nil, "uploaded", []string{"20-31", "3-31"}},
		{nil, "agent_left", []string{"17-102", "20-102"}},
		{[]string{"cloud_recording"}, "uploaded", []string{"3-31"}},
		{[]string{"cloud_recording", "rtc"}, "uploaded", []string{"3-31"}},
		{[]string{"cloud_recording", "speech_to_text"}, "uploaded", []string{"20-31", "3-31"}},
		{nil, "cloud_recording.uploaded", []string{"3-31"}},
		{[]string{"rtc", "cloud_recording"}, "cloud_recording.uploaded", []string{"3-31"}},
		{[]string{"cloud_recording"}, "31", []string{"3-31"}},
		{[]string{"cloud_recording"}, "48", []string{"3-48"}},
		{[]string{"unknown_99"}, "31", []string{"99-31"}},
		{nil, "cloud_recording.31", []string{"3-31"}},
		{[]string{"rtc", "cloud_recording"}, "cloud_recording.31", []string{"3-31"}},
		{nil, "cloud_recording.unknown_48", []string{"3-48"}},
		{nil, "unknown_48", []string{"3-48"}},
		// 3-46 has a name, but none that is published; 31 has one.
		{nil, "unknown_46", []string{"1-46", "3-46", "99-46"}},
		{nil, "unknown_31", []string{"99-31"}},
		{[]string{"cloud_recording"}, "unknown_46", []string{"3-46"}},
		{[]string{"cloud_recording", "unknown_99"}, "unknown_46", []string{"3-46", "99-46"}},
		{nil, "cloud_recording.unknown_31", []string{"3-31"}},
		{nil, "unknown_99.unknown_31", []string{"99-31"}},
	} {
		t.Run(fmt.Sprint(test.products, test.event), func(t *testing.T) {
			t.Parallel()
			selector, err := ncs.Builtin().ParseEvent(test.products, test.event)
			require.NoError(t, err)
			got := map[string]bool{}
			for _, i := range universe {
				if selector.Matches(i) {
					got[fmt.Sprintf("%d-%d", i.ProductID, i.EventType)] = true
				}
			}
			require.Equal(t, test.want, slices.Sorted(maps.Keys(got)))
		})
	}
	for _, test := range []struct {
		products []string
		event    string
		problem  string
	}{
		{nil, "uplaoded", `unknown event "uplaoded"`},
		{nil, "", "unknown event"},
		{nil, "Uploaded", "unknown event"},
		{nil, "31", "name one product"},
		{[]string{"rtc", "cloud_recording"}, "31", "name one product"},
		{[]string{"rtc"}, "uploaded", "unknown event"},
		{[]string{"rtc"}, "cloud_recording.uploaded", "not of product rtc"},
		{nil, "recording.uploaded", `unknown product "recording"`},
		{[]string{"recording"}, "uploaded", `unknown product "recording"`},
		{nil, "cloud_recording.", "unknown event"},
		{nil, "cloud_recording.uploaded.now", "unknown event"},
		{nil, "cloud_recording.031", "unknown event"},
		{nil, "unknown_", "unknown event"},
		{[]string{"media_push_sdk"}, "uploaded", "unknown event"},
	} {
		_, err := ncs.Builtin().ParseEvent(test.products, test.event)
		require.ErrorContains(t, err, test.problem, "%v %q", test.products, test.event)
	}
}
