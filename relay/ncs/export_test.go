package ncs

// EnvelopeNotes say what is undocumented or contradictory about the envelope; the page has them, no command.
func EnvelopeNotes() []string { return table().Envelope.Notes }
