package ncs

import (
	"fmt"
	"strings"
	"time"
)

// Describe gives one line for people on what the notification reports: the event's name, and what its details say where
// they are known ("recorder_leave: SIG, NO_USERS"). It says nothing of URLs, which may hold stream keys.
func (n *Notification) Describe() string {
	r, err := n.Recording()
	if err != nil {
		return n.Info.Event
	}
	if s := summary(r.Details); s != "" {
		return n.Info.Event + ": " + s
	}
	return n.Info.Event
}

func summary(details any) string {
	switch d := details.(type) {
	case *CloudRecordingError:
		return fmt.Sprintf("%s, %s%s", d.Level, code(int(d.Code), d.Module, d.Code.Meaning(d.Module)), lead(": ", d.Message))
	case *CloudRecordingWarning:
		return code(int(d.Code), d.Module, d.Code.Meaning(d.Module))
	case *CloudRecordingStatusUpdate:
		return d.Status.String()
	case *CloudRecordingFileInfos:
		return d.Files.summary()
	case *SessionExit:
		return d.Status.String()
	case *SessionFailover:
		return "new uid " + d.NewUID
	case *UploaderStarted:
		return d.Status.String()
	case *Uploaded:
		return d.Status.String() + lead(", ", d.UploadingStatus) + lead(", ", d.Files.summary())
	case *Backuped:
		return summary((*Uploaded)(d))
	case *UploadingProgress:
		if d.Progress < 0 {
			return ""
		}
		return fmt.Sprintf("%.2f %%", float64(d.Progress)/100)
	case *RecorderStarted:
		return d.Status.String()
	case *RecorderLeave:
		return strings.Join(d.Code.Reasons(), ", ")
	case *RecorderSliceStart:
		if gap := d.Start.Sub(d.Discontinue); gap > 0 && !d.Discontinue.IsZero() {
			return fmt.Sprintf("uid %s, after a gap of %s", d.StreamUID, gap.Round(time.Millisecond))
		}
		return "uid " + d.StreamUID
	case *RecorderAudioStreamStateChanged:
		return fmt.Sprintf("uid %s, %s", d.StreamUID, d.State)
	case *RecorderVideoStreamStateChanged:
		return summary((*RecorderAudioStreamStateChanged)(d))
	case *RecorderSnapshotFile:
		return d.FileName
	case *VodStarted:
		return lead("video ", d.AliVodInfo.VideoID)
	case *WebRecorderStopped:
		return d.Code.String() + lead(", ", d.Details)
	case *WebRecorderCapabilityLimit:
		return string(d.LimitType)
	case *WebRecorderReload:
		return string(d.Reason)
	case *TranscoderCompleted:
		return fmt.Sprintf("%s, %d users", d.Result.Outcome(), len(d.Users))
	case *DownloadFailed:
		return fmt.Sprintf("%d files from bucket %s", len(d.FileNames), d.Bucket)
	case *RTMPPublishStatus:
		return string(d.Status)
	case *PostponeTranscodeFinalResult:
		return d.Result.Outcome().String() + lead(", ", d.Files.summary())
	case *CloudTranscoderStarted:
		return d.State
	case *CloudTranscoderStopped:
		return d.StopReason
	case *CloudTranscoderStatus:
		return d.State
	case *CloudTranscoderUpdated:
		return d.State
	}
	return ""
}

func code(number int, m Module, meaning string) string {
	return fmt.Sprintf("%s %d%s", m, number, lead(" ", parenthesised(meaning)))
}

func parenthesised(s string) string {
	if s == "" {
		return ""
	}
	return "(" + s + ")"
}

// lead puts a separator in front of what is there.
func lead(separator, s string) string {
	if s == "" {
		return ""
	}
	return separator + s
}

func (f Files) summary() string {
	switch len(f) {
	case 0:
		return ""
	case 1:
		return f[0].Name
	}
	return fmt.Sprintf("%d files", len(f))
}
