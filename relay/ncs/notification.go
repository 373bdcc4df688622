package ncs

// Skeleton of the package's API. Bodies to be written.

// EventID identifies an event: the first 16 bytes of SHA-256 over key and fingerprint.
type EventID [16]byte

// Key is what duplicates are recognised by; two events may share it and differ in ID (a conflict).
type Key [16]byte

// Info is what the catalogue knows of a (productId, eventType) pair.
type Info struct {
	ProductID int
	Product   string // catalogue name ("cloud_recording") or "unknown_<id>"
	EventType int
	Event     string // bare name ("uploaded") or "unknown_<number>"
	Category  string // "unknown" for unknown types
	Known     bool
}

// Notification is one parsed call.
type Notification struct {
	NoticeID    string
	EventType   int
	NotifyMs    int64  // 0 when absent
	SID         string // the envelope's sid
	Payload     []byte // the payload object, a sub-slice of the body
	Info        Info
	Entity      string // unit of order; "" = none
	Channel     string // channel the event is about; "" = none
	ServiceType int    // -1 = none
	// further unexported fields needed by Identify, IsTest, OccurredAt
}

// Identity says which event a notification reports.
type Identity struct {
	Key Key
	ID  EventID
}

func (id EventID) String() string { panic("skeleton") } // 32 hex digits

func Parse(body []byte) (*Notification, error)           { panic("skeleton") }
func (n *Notification) Identify(source string) Identity  { panic("skeleton") }
func (n *Notification) IsTest() bool                     { panic("skeleton") }
func IdentifyOpaque(source string, body []byte) Identity { panic("skeleton") } // quarantined bodies
func Lookup(productID, eventType int) Info               { panic("skeleton") }
func Catalogue() []Info                                  { panic("skeleton") }
