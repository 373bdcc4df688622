package ncs

import (
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Describe gives one line for people on what the notification reports: the event's name, and what its details say where
// they are known ("recorder_leave: SIG, NO_USERS"). It leaves out rtmpUrl, which may hold a stream key, and replaces
// control characters, so that no text of the sender's can move the cursor of a terminal.
func (n *Notification) Describe() string {
	r, err := n.Recording()
	if err != nil {
		return n.Info.Event
	}
	return n.Info.Event + strings.Map(printable, lead(": ", summary(r.Details)))
}

func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return ' '
}

func summary(details any) string {
	switch d := details.(type) {
	case *CloudRecordingError:
		return d.Level.String() + ", " + code(int(d.Code), d.Module, d.Code.Meaning(d.Module)) + lead(": ", d.Message)
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
		return d.Result.Outcome().String() + ", " + count(len(d.Users), "user")
	case *DownloadFailed:
		return count(len(d.FileNames), "file") + lead(" from bucket ", d.Bucket)
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
	s := fmt.Sprintf("%s %d", m, number)
	if meaning != "" {
		s += " (" + meaning + ")"
	}
	return s
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
	return count(len(f), "file")
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
