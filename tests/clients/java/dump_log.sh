#!/usr/bin/env bash
# dump_log.sh DATA_DIR|FILE...: reads sealed segments with Kafka's own DumpLogSegments (deep iteration)
# and fails when it finds anything invalid, or when `percolog inspect segment` says something else of
# a batch. In a directory, the last segment of each log is left out: it is still written, may be
# longer than its records, and another process may hold it.
set -u
. "$(dirname "$0")/../lib.sh"
[ $# -gt 0 ] || { sed -n '2,5p' "$0"; exit 2; }
install_java
files=()
for argument in "$@"; do
  if [ -d "$argument" ]; then
    while IFS= read -r directory; do
      mapfile -t segments < <(find "$directory" -maxdepth 1 -name '*.log' -size +0 | sort)
      [ ${#segments[@]} -gt 1 ] && files+=("${segments[@]:0:${#segments[@]}-1}")
    done < <(find "$argument" -name '*.log' -printf '%h\n' | sort -u)
  else
    files+=("$argument")
  fi
done
if [ ${#files[@]} -eq 0 ]; then
  fail "no sealed segment in $*"
  finish
fi
report=$(mktemp "$INSTALLED/dump-XXXXXX")
trap 'rm -f "$report"' EXIT
for file in "${files[@]}"; do
  if ! timeout 110 java -XX:+UseSerialGC -Xmx1g -cp "$JAVA_LIB/*" org.apache.kafka.tools.DumpLogSegments --deep-iteration --files "$file" >"$report" 2>&1; then
    fail "$file" "$(tail -n 10 "$report")"
    continue
  fi
  # The tool reports `Non-consecutive offsets` for every segment that does not start at offset 0, so
  # offsets are followed here. Batches are `baseOffset: .. lastOffset: .. count: ..`, records `| offset: ..`.
  verdict=$(awk -v first="$(basename "$file" .log)" '
    /isvalid: false|Mismatch|mismatch|invalid bytes|Exception/ { if (bad++ < 5) print }
    /^baseOffset: / { batches++; for (i = 1; i < NF; i++) { if ($i == "baseOffset:") base = $(i + 1); if ($i == "lastOffset:") last = $(i + 1); if ($i == "count:") count += $(i + 1) }
      if (batches == 1 && base != first + 0) { bad++; print "the first batch is at " base }
      if (batches > 1 && base != end + 1) { bad++; print "batch at " base " follows " end }
      end = last }
    /^\| offset: / { records++; if (records > 1 && $3 != previous + 1) { bad++; print "record " $3 " follows " previous } previous = $3 }
    END { if (batches == 0) { bad++; print "no batch" } if (records != count) { bad++; print records " records, batches count " count }
      print "summary " batches + 0 " batches, " records + 0 " records"; exit bad > 0 }' "$report")
  if [ $? -ne 0 ]; then
    fail "$file" "$verdict"
  elif ! compared=$(python3 "$CLIENTS/java/dump_compare.py" "$PERCOLOG" <"$report"); then
    fail "$file" "$compared"
  else
    pass "${file##*/} in $(basename "$(dirname "$file")"): ${verdict##*summary }"
  fi
done
finish
