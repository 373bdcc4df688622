package ncs

import (
	"slices"
	"strconv"
	"strings"
)

// Product ids of the notification service. Source: "Notifications" of Agora's documentation, request body; 2 from its
// older Chinese page.
const (
	productRTC              = 1
	productMediaPushSDK     = 2
	productRecording        = 3
	productMediaPull        = 4
	productMediaPush        = 5
	productFusionCDN        = 7
	productMediaGateway     = 10
	productConversationalAI = 17
	productSpeechToText     = 20
)

// Product is a product whose notifications have a name here.
type Product struct {
	ID   int
	Name string // as in rules and topic names: "cloud_recording"
}

// products in the order of their ids. No event type of media_push_sdk is published, so all of its types are unknown.
var products = []Product{
	{productRTC, "rtc"},
	{productMediaPushSDK, "media_push_sdk"},
	{productRecording, "cloud_recording"},
	{productMediaPull, "media_pull"},
	{productMediaPush, "media_push"},
	{productFusionCDN, "fusion_cdn"},
	{productMediaGateway, "media_gateway"},
	{productConversationalAI, "conversational_ai"},
	{productSpeechToText, "speech_to_text"},
}

// Info is what the catalogue knows of a (productId, eventType) pair. Infos may be compared.
type Info struct {
	ProductID int
	Product   string // catalogue name ("cloud_recording") or "unknown_<id>"
	EventType int
	Event     string // bare name ("uploaded") or "unknown_<number>"
	Category  string // "unknown" for unknown types
	Known     bool

	added *addedType // of an overlay; nil = built in, or unknown
}

const (
	unknownPrefix   = "unknown_"
	unknownCategory = "unknown"
)

// entry is a row of the catalogue.
type entry struct {
	product, eventType int
	event, category    string
	// unpublished: the service is known to send the type, but no page names it, so the name is ours. The payload is not
	// published either. unknown_<number> addresses such a type too.
	unpublished bool
}

// entries is the catalogue, by product and type. Cloud Recording's names are the msgNames of the callback page, the others are
// slugs of the names of each product's event page. A category is decided by the type alone. A type that gets its entry
// after a release is marked unpublished, so that rules that say unknown_<number> keep working.
var entries = []entry{
	{product: productRTC, eventType: 101, event: "channel_create", category: "channel"},
	{product: productRTC, eventType: 102, event: "channel_destroy", category: "channel"},
	{product: productRTC, eventType: 103, event: "broadcaster_join_channel", category: "user"},
	{product: productRTC, eventType: 104, event: "broadcaster_leave_channel", category: "user"},
	{product: productRTC, eventType: 105, event: "audience_join_channel", category: "user"},
	{product: productRTC, eventType: 106, event: "audience_leave_channel", category: "user"},
	{product: productRTC, eventType: 107, event: "user_join_channel_communication", category: "user"},
	{product: productRTC, eventType: 108, event: "user_leave_channel_communication", category: "user"},
	{product: productRTC, eventType: 111, event: "client_role_change_to_broadcaster", category: "role"},
	{product: productRTC, eventType: 112, event: "client_role_change_to_audience", category: "role"},

	{product: productRecording, eventType: 1, event: "cloud_recording_error", category: "service"},
	{product: productRecording, eventType: 2, event: "cloud_recording_warning", category: "service"},
	{product: productRecording, eventType: 3, event: "cloud_recording_status_update", category: "service"},
	{product: productRecording, eventType: 4, event: "cloud_recording_file_infos", category: "service"},
	{product: productRecording, eventType: 11, event: "session_exit", category: "service"},
	{product: productRecording, eventType: 12, event: "session_failover", category: "service"},
	// 13 is named in "Integration best practices" of Cloud Recording only.
	{product: productRecording, eventType: 13, event: "high_availability_register_success", category: "service", unpublished: true},
	{product: productRecording, eventType: 30, event: "uploader_started", category: "uploader"},
	{product: productRecording, eventType: 31, event: "uploaded", category: "uploader"},
	{product: productRecording, eventType: 32, event: "backuped", category: "uploader"},
	{product: productRecording, eventType: 33, event: "uploading_progress", category: "uploader"},
	// 34, 46 and 47 were seen by receivers; Agora documents none of them.
	{product: productRecording, eventType: 34, event: "sts_expired", category: "uploader", unpublished: true},
	{product: productRecording, eventType: 40, event: "recorder_started", category: "recorder"},
	{product: productRecording, eventType: 41, event: "recorder_leave", category: "recorder"},
	{product: productRecording, eventType: 42, event: "recorder_slice_start", category: "recorder"},
	{product: productRecording, eventType: 43, event: "recorder_audio_stream_state_changed", category: "recorder"},
	{product: productRecording, eventType: 44, event: "recorder_video_stream_state_changed", category: "recorder"},
	{product: productRecording, eventType: 45, event: "recorder_snapshot_file", category: "recorder"},
	{product: productRecording, eventType: 46, event: "recorder_audio_info_changed", category: "recorder", unpublished: true},
	{product: productRecording, eventType: 47, event: "recorder_video_info_changed", category: "recorder", unpublished: true},
	{product: productRecording, eventType: 60, event: "vod_started", category: "extension"},
	{product: productRecording, eventType: 61, event: "vod_triggered", category: "extension"},
	{product: productRecording, eventType: 70, event: "web_recorder_started", category: "web_recorder"},
	{product: productRecording, eventType: 71, event: "web_recorder_stopped", category: "web_recorder"},
	{product: productRecording, eventType: 72, event: "web_recorder_capability_limit", category: "web_recorder"},
	{product: productRecording, eventType: 73, event: "web_recorder_reload", category: "web_recorder"},
	{product: productRecording, eventType: 80, event: "transcoder_started", category: "transcoder"},
	{product: productRecording, eventType: 81, event: "transcoder_completed", category: "transcoder"},
	{product: productRecording, eventType: 90, event: "download_failed", category: "download"},
	{product: productRecording, eventType: 100, event: "rtmp_publish_status", category: "web_recorder"},
	{product: productRecording, eventType: 110, event: "cloud_transcoder_started", category: "cloud_transcoder"},
	{product: productRecording, eventType: 111, event: "cloud_transcoder_stopped", category: "cloud_transcoder"},
	{product: productRecording, eventType: 112, event: "cloud_transcoder_status", category: "cloud_transcoder"},
	{product: productRecording, eventType: 113, event: "cloud_transcoder_updated", category: "cloud_transcoder"},
	{product: productRecording, eventType: 1001, event: "postpone_transcode_final_result", category: "transcoder"},

	{product: productMediaPull, eventType: 1, event: "player_created", category: "player"},
	{product: productMediaPull, eventType: 3, event: "player_destroyed", category: "player"},
	{product: productMediaPull, eventType: 4, event: "player_status_changed", category: "player"},

	{product: productMediaPush, eventType: 1, event: "converter_created", category: "converter"},
	{product: productMediaPush, eventType: 2, event: "converter_updated", category: "converter"},
	{product: productMediaPush, eventType: 3, event: "converter_state_changed", category: "converter"},
	{product: productMediaPush, eventType: 4, event: "converter_destroyed", category: "converter"},

	{product: productFusionCDN, eventType: 1, event: "publish_start", category: "publish"},
	{product: productFusionCDN, eventType: 2, event: "publish_end", category: "publish"},
	{product: productFusionCDN, eventType: 3, event: "new_custom_record_file", category: "record"},
	{product: productFusionCDN, eventType: 4, event: "new_custom_snapshot_file", category: "snapshot"},
	{product: productFusionCDN, eventType: 5, event: "new_custom_moderation_result", category: "moderation"},
	{product: productFusionCDN, eventType: 6, event: "new_record_start", category: "record"},
	{product: productFusionCDN, eventType: 7, event: "new_record_end", category: "record"},
	{product: productFusionCDN, eventType: 11, event: "publish_media_info", category: "publish"},
	{product: productFusionCDN, eventType: 101, event: "new_standard_record_file", category: "record"},
	{product: productFusionCDN, eventType: 102, event: "new_standard_snapshot_file", category: "snapshot"},
	{product: productFusionCDN, eventType: 103, event: "new_standard_moderation_result", category: "moderation"},
	{product: productFusionCDN, eventType: 106, event: "new_encrypt_record_file", category: "record"},

	{product: productMediaGateway, eventType: 1, event: "live_stream_connected", category: "stream"},
	{product: productMediaGateway, eventType: 2, event: "live_stream_disconnected", category: "stream"},
	{product: productMediaGateway, eventType: 3, event: "live_stream_aborted", category: "stream"},
	{product: productMediaGateway, eventType: 4, event: "live_profile_updated", category: "profile"},

	{product: productConversationalAI, eventType: 101, event: "agent_joined", category: "agent"},
	{product: productConversationalAI, eventType: 102, event: "agent_left", category: "agent"},
	{product: productConversationalAI, eventType: 103, event: "agent_history", category: "conversation"},
	{product: productConversationalAI, eventType: 104, event: "agent_expire", category: "agent"},
	{product: productConversationalAI, eventType: 110, event: "agent_error", category: "agent"},
	{product: productConversationalAI, eventType: 111, event: "agent_metrics", category: "conversation"},
	{product: productConversationalAI, eventType: 112, event: "turns_finished", category: "conversation"},
	{product: productConversationalAI, eventType: 201, event: "inbound_call_state", category: "call"},
	{product: productConversationalAI, eventType: 202, event: "outbound_call_state", category: "call"},

	// 4 and 30-33 are those of speech-to-text 5.x and 6.x, whose productId no page states. They stand here because it is the
	// same product and the numbers do not collide with 7.x; should they come under another id, they are unknown
	// types of an unknown product, which is routed like any other.
	{product: productSpeechToText, eventType: 4, event: "file_infos", category: "uploader"},
	{product: productSpeechToText, eventType: 30, event: "uploader_started", category: "uploader"},
	{product: productSpeechToText, eventType: 31, event: "uploaded", category: "uploader"},
	{product: productSpeechToText, eventType: 32, event: "backuped", category: "uploader"},
	{product: productSpeechToText, eventType: 33, event: "uploading_progress", category: "uploader"},
	{product: productSpeechToText, eventType: 101, event: "agent_joined", category: "agent"},
	{product: productSpeechToText, eventType: 102, event: "agent_left", category: "agent"},
}

type pair struct{ product, eventType int }

// row is an entry as it is looked up.
type row struct {
	info        Info
	unpublished bool
}

// Catalogue names products and event types: those of this version (Builtin), and what an Overlay adds. It is read only. A nil
// Catalogue is Builtin.
type Catalogue struct {
	products []Product // by id
	names    map[int]string
	types    []Info // by product id and type
	index    map[pair]row
}

var builtin = newBuiltin()

// Builtin is what this version of the relay names by itself.
func Builtin() *Catalogue { return builtin }

func newBuiltin() *Catalogue {
	c := &Catalogue{products: products, names: map[int]string{}, index: map[pair]row{}}
	for _, p := range products {
		c.names[p.ID] = p.Name
	}
	for _, e := range entries {
		info := Info{ProductID: e.product, Product: c.names[e.product], EventType: e.eventType, Event: e.event, Category: e.category, Known: true}
		c.types = append(c.types, info)
		c.index[pair{e.product, e.eventType}] = row{info, e.unpublished}
	}
	return c
}

func (c *Catalogue) orBuiltin() *Catalogue {
	if c == nil {
		return builtin
	}
	return c
}

// Lookup returns the catalogue's entry, or an Info with Known false and names made of the numbers.
func (c *Catalogue) Lookup(productID, eventType int) Info {
	c = c.orBuiltin()
	if r, ok := c.index[pair{productID, eventType}]; ok {
		return r.info
	}
	return Info{
		ProductID: productID,
		Product:   c.productName(productID),
		EventType: eventType,
		Event:     unknownPrefix + strconv.Itoa(eventType),
		Category:  unknownCategory,
	}
}

func (c *Catalogue) productName(id int) string {
	if name, ok := c.names[id]; ok {
		return name
	}
	return unknownPrefix + strconv.Itoa(id)
}

// Types lists every known event type, ordered by product id and type.
func (c *Catalogue) Types() []Info { return slices.Clone(c.orBuiltin().types) }

// Products lists the known products, ordered by id.
func (c *Catalogue) Products() []Product { return slices.Clone(c.orBuiltin().products) }

// ProductNames lists the names of the known products, ordered by id.
func (c *Catalogue) ProductNames() []string {
	var names []string
	for _, p := range c.orBuiltin().products {
		names = append(names, p.Name)
	}
	return names
}

// HasProductName reports whether the product has a name, which senders cannot make up.
func (i Info) HasProductName() bool {
	return i.Product != "" && !strings.HasPrefix(i.Product, unknownCategory)
}

// unpublished reports whether unknown_<number> addresses the type although it has a name.
func (i Info) unpublished() bool {
	return i.added != nil || builtin.index[pair{i.ProductID, i.EventType}].unpublished
}

// HasChannel reports whether notifications of the type name a channel. It is true for unknown types and those that an overlay adds, of
// which anything may be expected.
func (i Info) HasChannel() bool {
	if !i.Known || i.added != nil {
		return true
	}
	switch i.ProductID {
	case productRecording:
		return !isCloudTranscoder(i.EventType) // its inputs and outputs may be of several channels
	case productMediaPush:
		return i.EventType == 1 || i.EventType == 2 // the others leave transcodeOptions out
	case productFusionCDN:
		return false
	}
	return true
}

// HasServiceType is HasChannel for serviceType.
func (i Info) HasServiceType() bool {
	if !i.Known || i.added != nil {
		return true
	}
	switch i.ProductID {
	case productRecording:
		return !isCloudTranscoder(i.EventType)
	case productSpeechToText:
		return isLegacySpeechToText(i.EventType)
	}
	return false
}

func isCloudTranscoder(eventType int) bool { return eventType >= 110 && eventType <= 113 }

func isLegacySpeechToText(eventType int) bool {
	return eventType == 4 || eventType >= 30 && eventType <= 33
}
