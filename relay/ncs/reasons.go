package ncs

// Reasons lists every Reason constant.
func Reasons() []string {
	return []string{
		ReasonEmpty, ReasonNotJSON, ReasonInvalidUTF8, ReasonDuplicateName, ReasonTrailingData, ReasonNotObject, ReasonTooLarge,
		ReasonNoEventType, ReasonBadEventType, ReasonNoProduct, ReasonBadProduct, ReasonNoPayload, ReasonPayloadNoObject,
		ReasonNoNoticeID,
	}
}
