package kafkasink

import (
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"

	"ncs-relay/relay"
)

// partitioner chooses the partition of a key among count > 0.
type partitioner func(key string, count int) int

// partitioners by their names in the configuration, which are those of the clients that put keys there.
var partitioners = map[string]partitioner{
	"java":       javaPartition,
	"librdkafka": librdkafkaPartition,
	"sarama":     saramaPartition,
}

// place chooses the partition of an event. Events with an entity go where other clients put a record of that key, so that
// consumers that join topics by key find both sides in equal partitions. Events without one are spread by their id and
// not in turn: an event that is tried again, by this process or the next, meets its first try.
func (p partitioner) place(ev *relay.Event, count int) int {
	if ev.Entity == "" {
		return int(binary.BigEndian.Uint32(ev.ID[:4]) % uint32(count))
	}
	return p(ev.Entity, count)
}

// javaPartition is that of Kafka's Java client for records with a key.
func javaPartition(key string, count int) int {
	return int((murmur2(key) & 0x7fffffff) % uint32(count))
}

// librdkafkaPartition is the partitioner "consistent_random", the default of librdkafka and of the clients built on it.
func librdkafkaPartition(key string, count int) int {
	return int(crc32.ChecksumIEEE([]byte(key)) % uint32(count))
}

// saramaPartition is Sarama's NewHashPartitioner, its default. The remainder is signed, and made positive.
func saramaPartition(key string, count int) int {
	hash := fnv.New32a()
	hash.Write([]byte(key))
	partition := int32(hash.Sum32()) % int32(count)
	return int(max(partition, -partition))
}

// murmur2 is the hash of Kafka's Java client (org.apache.kafka.common.utils.Utils.murmur2): MurmurHash2 with a fixed
// seed. kafka-go's Murmur2Balancer is not used: it hides the partition behind a message and divides by a partition count
// of zero.
func murmur2(key string) uint32 {
	const (
		seed  = 0x9747b28c
		m     = 0x5bd1e995
		shift = 24
	)
	h := uint32(seed) ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := uint32(key[0]) | uint32(key[1])<<8 | uint32(key[2])<<16 | uint32(key[3])<<24
		k *= m
		k ^= k >> shift
		k *= m
		h = h*m ^ k
	}
	if len(key) > 0 {
		for i := range len(key) {
			h ^= uint32(key[i]) << (8 * i)
		}
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
