#!/usr/bin/env bash
# Apache Kafka 4.4.0, kafka-consumer-groups: --to-datetime without a zone is UTC, whatever the zone of the machine.
#
# Guess before it was run: a time without a zone is the machine's local time, as for date, journalctl or psql.
# Seen: it is UTC also with TZ=Asia/Tokyo. Who resets a group in Tokyo to 12:00, the local hour at which a service began to fail, gets
# 21:00 local time: nine hours of events are left out, and since nothing is that young, the group stands at the end. Write the zone:
# 2026-01-02T12:00:00.000+09:00.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/kafka.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
kafka 4.4.0
tool org.apache.kafka.tools.TopicCommand --create --topic events --partitions 1 >/dev/null
printf 'one\ntwo\nthree\n' | tool org.apache.kafka.tools.ConsoleProducer --topic events
start() { # of a group that is to go back two hours, told in Tokyo's time; the three records are younger
  TZ=Asia/Tokyo tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --group g --topic events --reset-offsets --dry-run \
    --to-datetime "$(TZ=Asia/Tokyo date -d '-2 hours' "+%Y-%m-%dT%H:%M:%S.000$1")" | awk '/^g / {print $4}'
}
seen="without a zone: $(start '')
with its zone: $(start '%:z')"
printf '%s\n' "$seen"
[ "$seen" = "without a zone: 3
with its zone: 0" ] || { echo "Kafka behaves otherwise now" >&2; exit 1; }
