# shellcheck shell=bash
# For findings that need a real Apache Kafka: `kafka VERSION` starts one broker in $dir, which ends with the script. It sets
# $broker, its address, and $jars, the class path of Kafka's tools and clients, which is all that `kafka_jars VERSION` does.
# Needs Java 17, Maven and Maven Central.

kafka_jars() {
  cat >pom.xml <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$1</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$1</version></dependency>
  </dependencies>
</project>
POM
  mvn -B -q org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DoutputDirectory="$dir/jars" >mvn.log 2>&1 ||
    { cat mvn.log >&2; exit 1; }
  jars="$dir/jars/*"
}

kafka() {
  kafka_jars "$1"
  local ports
  ports=$(python3 -c 'import socket; s = [socket.create_server(("127.0.0.1", 0)) for _ in "ab"]; print(*(x.getsockname()[1] for x in s))')
  broker=127.0.0.1:${ports% *}
  local controller=127.0.0.1:${ports#* }
  cat >server.properties <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$controller
listeners=PLAINTEXT://$broker,CONTROLLER://$controller
advertised.listeners=PLAINTEXT://$broker
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$dir/data
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
PROPERTIES
  java -cp "$jars" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c server.properties >format.log 2>&1 ||
    { cat format.log >&2; exit 1; }
  java -Xmx512m -XX:TieredStopAtLevel=1 -cp "$jars" kafka.Kafka server.properties >broker.log 2>&1 &
  kafka_process=$!
  trap 'kill -9 $kafka_process; wait $kafka_process 2>/dev/null || true; rm -rf "$dir"' EXIT
  for _ in $(seq 60); do
    (echo >"/dev/tcp/${broker/:/\/}") 2>/dev/null && return # its last step is to listen
    sleep 1
  done
  cat broker.log >&2
  exit 1
}

# tool runs one of Kafka's commands, by its class, against the broker.
tool() {
  local class=$1
  shift
  java -XX:TieredStopAtLevel=1 -cp "$jars" "$class" --bootstrap-server "$broker" "$@" 2>>tools.log
}
