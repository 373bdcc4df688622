#!/usr/bin/env bash
# Apache Kafka 4.4.0, Java client: with auto.offset.reset=by_duration the first record of a quiet partition is read up to 30 s late.
#
# Guess before it was run: where no record is that young, by_duration starts at the end, as "latest" would, and reads the next record
# when it comes.
# Seen: the partition gets no position at all. Poll returns nothing, position() throws TimeoutException, nothing is said; and the
# consumer asks again only when request.timeout.ms (30 s) is over. So the first record of a new or quiet topic may wait that long, where "earliest" has it in milliseconds; the group's lag is unknown meanwhile. Both group protocols do it.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/kafka.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
kafka 4.4.0
cat >Main.java <<'JAVA'
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

class Main {
  public static void main(String[] args) throws Exception {
    try (var admin = Admin.create(Map.of("bootstrap.servers", args[0]));
        var producer = new KafkaProducer<>(Map.of("bootstrap.servers", args[0]), new StringSerializer(), new StringSerializer())) {
      for (var reset : List.of("earliest", "by_duration:PT1H")) {
        var topic = "t" + reset.replaceAll("\\W", "-");
        admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all().get();
        try (var consumer = new KafkaConsumer<>(Map.<String, Object>of("bootstrap.servers", args[0], "group.id", topic,
            "auto.offset.reset", reset), new StringDeserializer(), new StringDeserializer())) {
          consumer.subscribe(List.of(topic));
          while (consumer.assignment().isEmpty()) consumer.poll(Duration.ofMillis(100));
          for (int i = 0; i < 20; i++) consumer.poll(Duration.ofMillis(100)); // it has asked where to start
          producer.send(new ProducerRecord<>(topic, "an event")).get();
          long written = System.nanoTime();
          while (consumer.poll(Duration.ofMillis(100)).isEmpty() && System.nanoTime() - written < 60_000_000_000L) { }
          System.out.println(reset + ": read within 10 s: " + (System.nanoTime() - written < 10_000_000_000L));
        }
      }
    }
  }
}
JAVA
javac -cp "$jars" Main.java
seen=$(java -cp "$dir:$jars" Main "$broker" 2>>tools.log)
printf '%s\n' "$seen"
[ "$seen" = "earliest: read within 10 s: true
by_duration:PT1H: read within 10 s: false" ] || { echo "Kafka behaves otherwise now" >&2; exit 1; }
