#!/usr/bin/env bash
# Real text through librdkafka (kcat): every codec, eight partitions, back byte for byte.
# SIZE_MB (default 200) is the size of the text in all, over codecs and partitions.
set -u
. "$(dirname "$0")/lib.sh"
need_bootstrap
install_kcat
install_python
SIZE_MB=${SIZE_MB:-200}
PARTITIONS=8
CODECS="none gzip snappy lz4 zstd"
WORK=$(mktemp -d "$INSTALLED/kcat-XXXXXX")
trap 'rm -rf "$WORK"' EXIT

# Text of this machine, without NUL and without empty lines (kcat does not send those), in lines of
# at most 900,000 bytes; `piece.NN` is one partition of one codec.
corpus() {
  local wanted=$((SIZE_MB * 1000 * 1000)) pieces=40 source
  # A pipe that is closed early by head is no failure.
  (
    for source in /usr/lib/python3 "$HOME/.rustup" "$HOME/.cargo/registry/src" "$(python3 -c 'import sys; print(sys.prefix)')/lib" "$(go env GOROOT 2>/dev/null)/src" /usr/share /usr/include; do
      [ -d "$source" ] && find "$source" -type f \( -name '*.py' -o -name '*.rs' -o -name '*.html' -o -name '*.txt' -o -name '*.md' -o -name '*.go' -o -name '*.h' -o -path '*/doc/*' \) -size -20M -print0 2>/dev/null | sort -z | xargs -0 -r cat 2>/dev/null
    done
  ) | tr -d '\000' | LC_ALL=C awk '{ while (length($0) > 900000) { print substr($0, 1, 900000); $0 = substr($0, 900001) } if (length($0) > 0) print }' |
    head -c "$wanted" >"$WORK/text"
  [ "$(wc -c <"$WORK/text")" -eq "$wanted" ] || return 1
  # A cut last line gets its end, so that every record is a line; split cuts between lines.
  echo >>"$WORK/text"
  split -n "l/$pieces" -d -a 2 "$WORK/text" "$WORK/piece."
  rm "$WORK/text"
}
corpus 2>/dev/null || { fail "corpus" "less than $SIZE_MB MB of text on this machine"; finish; }
echo "corpus: $(cat "$WORK"/piece.* | wc -c) bytes, $(cat "$WORK"/piece.* | wc -l) lines, longest $(cat "$WORK"/piece.* | LC_ALL=C awk '{ if (length($0) > n) n = length($0) } END { print n }')"

check_partition() { # NAME EXPECTED ACTUAL
  local expected actual
  expected=$(sha256sum <"$2" | cut -c1-64)
  actual=$(sha256sum <"$3" | cut -c1-64)
  if [ "$expected" = "$actual" ]; then pass "$1 sha256 ${actual:0:16} $(wc -c <"$3") bytes"; else fail "$1" "sha256 $expected sent, $actual back; bytes $(wc -c <"$2") sent, $(wc -c <"$3") back; first difference: $(cmp "$2" "$3" 2>&1)"; fi
}

index=0
for codec in $CODECS; do
  topic=kcat-$codec-$RUN_NAME
  "$PYTHON" "$CLIENTS/python/topic.py" create "$topic" $PARTITIONS || { fail "create $topic"; continue; }
  started=$(date +%s%N)
  first=$index
  jobs=()
  for partition in $(seq 0 $((PARTITIONS - 1))); do
    piece=$WORK/piece.$(printf %02d $((first + partition)))
    timeout 110 kcat -P -b "$BOOTSTRAP" -t "$topic" -p "$partition" -z "$codec" -X message.timeout.ms=60000 -l "$piece" >"$WORK/produce.$partition" 2>&1 </dev/null &
    jobs+=($!)
  done
  for partition in $(seq 0 $((PARTITIONS - 1))); do
    wait "${jobs[$partition]}" || fail "kcat $codec partition $partition produce" "$(cat "$WORK/produce.$partition")"
  done
  produced=$(date +%s%N)
  for partition in $(seq 0 $((PARTITIONS - 1))); do
    piece=$WORK/piece.$(printf %02d $((first + partition)))
    # With the offset in front: content, order and dense offsets from one reading.
    timeout 60 kcat -C -q -b "$BOOTSTRAP" -t "$topic" -p "$partition" -o beginning -e -X fetch.wait.max.ms=20 -f '%o %s\n' >"$WORK/numbered" 2>"$WORK/errors" ||
      fail "kcat $codec partition $partition consume" "$(cat "$WORK/errors")"
    LC_ALL=C cut -d ' ' -f 2- "$WORK/numbered" >"$WORK/back"
    check_partition "kcat $codec partition $partition" "$piece" "$WORK/back"
    LC_ALL=C cut -d ' ' -f 1 "$WORK/numbered" | cmp -s - <(seq 0 $(($(wc -l <"$piece") - 1))) ||
      fail "kcat $codec partition $partition: dense offsets" "$(LC_ALL=C cut -d ' ' -f 1 "$WORK/numbered" | diff - <(seq 0 $(($(wc -l <"$piece") - 1))) | head -n 5)"
    if [ -n "${TESTING_PERCOLOG:-}" ] && [ -x "$PERCOLOG" ]; then
      timeout 60 "$PERCOLOG" consume "$topic" --bootstrap "$BOOTSTRAP" --partition "$partition" --from beginning --exit-at-end >"$WORK/back" 2>"$WORK/errors" </dev/null ||
        fail "percolog consume $codec partition $partition" "$(cat "$WORK/errors")"
      check_partition "percolog consume $codec partition $partition" "$piece" "$WORK/back"
    fi
  done
  index=$((first + PARTITIONS))
  echo "      $codec: produced in $(((produced - started) / 1000000)) ms, read back in $((($(date +%s%N) - produced) / 1000000)) ms"
done
finish
