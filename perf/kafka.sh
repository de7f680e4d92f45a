#!/usr/bin/env bash
# kafka.sh start DIR PORT [KEY=VALUE...]   a fresh single-node Apache Kafka 4.3.1 (KRaft) on 127.0.0.1
# kafka.sh stop DIR                        stops it
# kafka.sh --help                          this text
#
# `start` keeps everything in DIR (data, logs, settings, broker.pid) and prints the process id when the
# broker answers; PORT + 1 is the controller's. Kafka runs as its own scripts start it: their JVM flags
# and garbage collection log, their server.properties as far as they differ from the code's defaults.
# KEY=VALUE is added to the settings. Needs Java 17 and, the first time, Maven.
set -euo pipefail

version=4.3.1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jars=$root/target/kafka-$version/jars

help() {
  sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}

die() {
  echo "kafka.sh: $1" >&2
  exit "${2:-1}"
}

# need COMMAND PACKAGE
need() {
  command -v "$1" >/dev/null || die "$1 is missing: sudo apt-get install -y $2"
}

# The jars with what they depend on, fetched once by Maven.
fetch() {
  [ ! -e "$jars/.complete" ] || return 0
  need mvn maven
  mkdir -p "$jars"
  {
    echo '<project><modelVersion>4.0.0</modelVersion><groupId>percolog</groupId>'
    echo '<artifactId>kafka-broker</artifactId><version>1</version><dependencies>'
    # The server and its command-line tools. Without the release's logging, so no log files either.
    for artifact in org.apache.kafka:kafka_2.13:$version org.apache.kafka:kafka-tools:$version; do
      IFS=: read -r group name release <<<"$artifact"
      echo "<dependency><groupId>$group</groupId><artifactId>$name</artifactId>"
      echo "<version>$release</version></dependency>"
    done
    echo '</dependencies></project>'
  } >"$jars/../pom.xml"
  mvn -q -B -f "$jars/../pom.xml" dependency:copy-dependencies -DoutputDirectory="$jars" \
    -DincludeScope=runtime </dev/null >&2
  touch "$jars/.complete"
}

settings() {
  local directory=$1 port=$2
  shift 2
  printf '%s\n' \
    process.roles=broker,controller \
    node.id=1 \
    "controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))" \
    "listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))" \
    "advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))" \
    inter.broker.listener.name=PLAINTEXT \
    controller.listener.names=CONTROLLER \
    listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT \
    "log.dirs=$directory/data" \
    num.network.threads=3 \
    num.io.threads=8 \
    num.partitions=1 \
    offsets.topic.replication.factor=1 \
    transaction.state.log.replication.factor=1 \
    transaction.state.log.min.isr=1 \
    share.coordinator.state.topic.replication.factor=1 \
    share.coordinator.state.topic.min.isr=1 \
    "$@"
}

start() {
  [ $# -ge 2 ] || die 'start takes a directory and a port' 2
  local directory=$1 port=$2 pid
  shift 2
  need java openjdk-17-jdk-headless
  fetch
  [ ! -e "$directory/broker.pid" ] || die "$directory has a broker already"
  mkdir -p "$directory/data"
  settings "$directory" "$port" "$@" >"$directory/server.properties"
  java -cp "$jars/*" kafka.tools.StorageTool format --standalone -t AAAAAAAAAAAAAAAAAAAAAQ \
    -c "$directory/server.properties" >"$directory/format.log" 2>&1 ||
    die "formatting failed: $(tail -n 3 "$directory/format.log")"
  java -Xmx1G -Xms1G -server -XX:+UseG1GC -XX:MaxGCPauseMillis=20 \
    -XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent -Djava.awt.headless=true \
    "-Xlog:gc*:file=$directory/gc.log:time,tags:filecount=10,filesize=100M" \
    -cp "$jars/*" kafka.Kafka "$directory/server.properties" \
    >"$directory/broker.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$directory/broker.pid"
  for _ in $(seq 1 600); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
      echo "$pid"
      return
    fi
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 5 "$directory/broker.log" >&2
  kill -KILL "$pid" 2>/dev/null || true
  rm -f "$directory/broker.pid"
  die 'the broker does not answer'
}

stop() {
  [ $# -eq 1 ] || die 'stop takes a directory' 2
  local pid
  [ -e "$1/broker.pid" ] || die "$1 has no broker"
  pid=$(cat "$1/broker.pid")
  rm -f "$1/broker.pid"
  kill -TERM "$pid" 2>/dev/null || return 0
  for _ in $(seq 1 600); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

case ${1:-} in
  start | stop) "$@" ;;
  --help | -h) help ;;
  *)
    help >&2
    exit 2
    ;;
esac
