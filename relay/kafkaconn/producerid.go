package kafkaconn

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
)

const (
	idTries = 20
	idWait  = 100 * time.Millisecond
)

// NewProducerID asks for the id and epoch of a new idempotent producer. Without a transaction any broker gives ids.
// kafka-go's Transport would look up a transaction coordinator: that creates the topic __transaction_state, and fails where
// no broker may be one.
func (c *Cluster) NewProducerID(ctx context.Context) (id int64, epoch int16, err error) {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	for try := 1; ; try++ {
		response, err := Answer[*initproducerid.Response](c.Ask(ctx, &initproducerid.Request{ProducerID: -1, ProducerEpoch: -1}))
		if err != nil {
			return 0, 0, err
		}
		code := kafka.Error(response.ErrorCode)
		switch {
		case code == 0:
			return response.ProducerID, response.ProducerEpoch, nil
		case try == idTries || code != kafka.GroupLoadInProgress && code != kafka.GroupCoordinatorNotAvailable:
			return 0, 0, code
		}
		if !Pause(ctx, idWait) { // the broker is asking the controller for more ids
			return 0, 0, code
		}
	}
}
