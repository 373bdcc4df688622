#!/usr/bin/env bash
# Apache Kafka 4.3.1, three nodes that are brokers and controllers: a killed node's partitions get leaders after
# broker.session.timeout.ms, but if it was the active controller, seconds later than that.
#
# Guess before it was run: the other controllers have followed each heartbeat, so it makes no difference which node is killed:
# leaders are there after the session, 6 s here.
# Seen: leaders after 5.5 and 8.1 s. Only the active controller keeps when each broker was heard of. Its successor is elected about two
# seconds after the kill, and then gives every broker, also the one that died with the old controller, a whole session to be heard of. So a
# bound such as "a producer with acks=all goes on after the session" is too low by the election wherever brokers are controllers too.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib/kafka.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
kafka_jars 4.3.1
ports=$(python3 -c 'import socket; s = [socket.create_server(("127.0.0.1", 0)) for _ in "abcdef"]; print(*(x.getsockname()[1] for x in s))')
read -ra port <<<"$ports"
for node in 1 2 3; do
  cat >"$node.properties" <<PROPERTIES
process.roles=broker,controller
node.id=$node
controller.quorum.voters=1@127.0.0.1:${port[3]},2@127.0.0.1:${port[4]},3@127.0.0.1:${port[5]}
listeners=PLAINTEXT://127.0.0.1:${port[node - 1]},CONTROLLER://127.0.0.1:${port[node + 2]}
advertised.listeners=PLAINTEXT://127.0.0.1:${port[node - 1]}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$dir/data-$node
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
offsets.topic.num.partitions=1
log.cleaner.dedupe.buffer.size=2097152
PROPERTIES
  java -cp "$jars" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c "$node.properties" >"format-$node.log" 2>&1 ||
    { cat "format-$node.log" >&2; exit 1; }
done
cat >Main.java <<'JAVA'
import java.io.File;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;

class Main {
  static Process[] nodes = new Process[4];

  public static void main(String[] args) throws Exception {
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      for (var node : nodes) if (node != null) node.destroyForcibly();
    }));
    for (int node = 1; node <= 3; node++) start(node, args[1]);
    try (var admin = Admin.create(Map.of("bootstrap.servers", args[0], "default.api.timeout.ms", 60000, "request.timeout.ms", 2000,
        "socket.connection.setup.timeout.ms", 500, "metadata.max.age.ms", 500))) {
      while (admin.describeCluster().nodes().get().size() < 3) Thread.sleep(200);
      admin.createTopics(List.of(new NewTopic("t", 12, (short) 3))).all().get();
      inSync(admin);
      long other = kill(admin, false, args[1]), controller = kill(admin, true, args[1]);
      System.err.printf("leaders after %.1f and %.1f s%n", other / 1e9, controller / 1e9);
      System.out.println("another node: after the session, within 1.5 s more: " + (other > 4_500_000_000L && other < 7_500_000_000L));
      System.out.println("the active controller: a second later than that, or more: " + (controller - other > 1_000_000_000L));
    }
    System.exit(0);
  }

  static void start(int node, String jars) throws Exception {
    nodes[node] = new ProcessBuilder("java", "-Xmx400m", "-XX:TieredStopAtLevel=1", "-cp", jars, "kafka.Kafka", node + ".properties")
        .redirectErrorStream(true).redirectOutput(new File("broker-" + node + ".log")).start();
  }

  static int controller(Admin admin) throws Exception {
    return admin.describeMetadataQuorum().quorumInfo().get().leaderId();
  }

  /** Kills a node, returns how long some partition has it as its leader, and starts it again. */
  static long kill(Admin admin, boolean active, String jars) throws Exception {
    int leader = controller(admin), victim = active ? leader : leader % 3 + 1;
    nodes[victim].destroyForcibly().waitFor();
    long killed = System.nanoTime(), took = -1;
    while (took < 0 && System.nanoTime() - killed < 60_000_000_000L) {
      try {
        var topic = admin.describeTopics(List.of("t")).allTopicNames().get().get("t");
        if (topic.partitions().stream().allMatch(p -> p.leader() != null && p.leader().id() != victim)) took = System.nanoTime() - killed;
      } catch (Exception e) { } // a node that is gone
      Thread.sleep(50);
    }
    start(victim, jars);
    inSync(admin);
    return took;
  }

  static void inSync(Admin admin) throws Exception {
    for (;;) {
      try {
        var topic = admin.describeTopics(List.of("t")).allTopicNames().get().get("t");
        if (topic.partitions().stream().allMatch(p -> p.isr().size() == 3)) break;
      } catch (Exception e) { }
      Thread.sleep(200);
    }
    Thread.sleep(3000); // and leaders are where they were
  }
}
JAVA
javac -cp "$jars" Main.java
seen=$(timeout 240 java -cp "$dir:$jars" Main "127.0.0.1:${port[0]},127.0.0.1:${port[1]},127.0.0.1:${port[2]}" "$jars" 2>>tools.log) || { tail -20 tools.log >&2; exit 1; }
grep "leaders after" tools.log || true
printf '%s\n' "$seen"
[ "$seen" = "another node: after the session, within 1.5 s more: true
the active controller: a second later than that, or more: true" ] || { echo "Kafka behaves otherwise now" >&2; exit 1; }
