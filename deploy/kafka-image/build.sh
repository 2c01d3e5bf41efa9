#!/usr/bin/env bash
# Builds the image apache/kafka:<version> on this machine, for places where no image registry can be reached.
#
# It is made of Apache Kafka's jars from Maven Central, a Java runtime cut out of the JDK here, and bash with the few
# programs that scripts in a container need. It starts like the official image: KAFKA_* variables and CLUSTER_ID, command
# /etc/kafka/docker/run, ready line "Kafka Server started" on standard output. It is for tests and development: broker
# only, running as root, without Kafka's command-line tools.
#
# Needs: a JDK of at least 17 (jlink), Maven, a running Docker engine. Usage: deploy/kafka-image/build.sh
set -euo pipefail
cd "$(dirname "$0")"

version=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' pom.xml)
programs=(bash cat cp env ls mkdir mv rm sleep)
modules=java.se,jdk.management,jdk.unsupported,jdk.crypto.ec,jdk.zipfs

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
mkdir -p "$root"/{usr/bin,tmp,opt/kafka/config,mnt/shared/config,etc/kafka/docker}
chmod 1777 "$root/tmp"

mvn --batch-mode --quiet -Dstyle.color=never --file pom.xml dependency:copy-dependencies -DincludeScope=runtime \
  -DoutputDirectory="$root/opt/kafka/libs"
jlink --add-modules "$modules" --strip-java-debug-attributes --no-header-files --no-man-pages --compress=2 \
  --output "$root/opt/java"

# Every shared object a program or the runtime is linked with goes to the path it is looked for at.
copy_libraries() {
  ldd "$@" 2>/dev/null | grep -o '/[^ :)]*\.so[^ :)]*' | sort -u | while read -r library; do
    case $library in "$root"/*) continue ;; esac
    [ -e "$root$library" ] || install -D -m 755 "$(readlink -f "$library")" "$root$library"
  done
}
for program in "${programs[@]}"; do
  path=$(type -P "$program")
  install -m 755 "$path" "$root/usr/bin/$program"
  copy_libraries "$path"
done
ln -s bash "$root/usr/bin/sh"
ln -s usr/bin "$root/bin"
find "$root/opt/java" -type f \( -name '*.so' -o -path '*/bin/java' \) | while read -r object; do
  copy_libraries "$object"
done

install -m 755 run "$root/etc/kafka/docker/run"
# The wrapper copies these before it adds to them.
: >"$root/etc/kafka/docker/server.properties"
: >"$root/etc/kafka/docker/log4j2.yaml"
: >"$root/etc/kafka/docker/tools-log4j2.yaml"
echo 'root:x:0:0:root:/tmp:/bin/bash' >"$root/etc/passwd"

tar -C "$root" -c . | docker import \
  --change 'ENV PATH=/opt/java/bin:/usr/bin' \
  --change 'CMD ["/etc/kafka/docker/run"]' \
  --change 'EXPOSE 9092' \
  - "apache/kafka:$version" >/dev/null
docker image ls "apache/kafka:$version"
