"""dump_compare.py PERCOLOG: reads the output of Kafka's DumpLogSegments on stdin, asks `PERCOLOG inspect
segment --output json` about every file in it, and compares the two batch by batch. Fails on the first
difference of a file; prints files and batches compared."""

import json
import subprocess
import sys

percolog = sys.argv[1]


def dumped(lines):
    """Files with their batch lines."""
    files = {}
    batches = None
    for line in lines:
        if line.startswith("Dumping "):
            batches = files.setdefault(line[len("Dumping "):].strip(), [])
        elif line.startswith("baseOffset: "):
            batches.append(line.strip())
    return files


def as_kafka(batch):
    """A batch of `inspect segment` in the words of DumpLogSegments."""
    flags = batch["flags"]
    count = batch["record_count"]
    sequence = batch["base_sequence"]
    # Kafka: DefaultRecordBatch.incrementSequence; -1 stays -1.
    last = sequence if sequence < 0 else (sequence + batch["last_offset"] - batch["base_offset"]) % (1 << 31)
    horizon = f"OptionalLong[{batch['base_timestamp_ms']}]" if "delete-horizon" in flags else "OptionalLong.empty"
    kind = "LogAppendTime" if "append-time" in flags else "CreateTime"
    fields = [
        ("baseOffset", batch["base_offset"]),
        ("lastOffset", batch["last_offset"]),
        ("count", count),
        ("baseSequence", sequence),
        ("lastSequence", last),
        ("producerId", batch["producer_id"]),
        ("producerEpoch", batch["producer_epoch"]),
        ("partitionLeaderEpoch", batch["partition_leader_epoch"]),
        ("isTransactional", str("transactional" in flags).lower()),
        ("isControl", str("control" in flags).lower()),
        ("deleteHorizonMs", horizon),
        ("position", batch["position"]),
        (kind, batch["max_timestamp_ms"]),
        ("size", batch["size_bytes"]),
        ("magic", 2),
        ("compresscodec", batch["codec"]),
        ("crc", int(batch["crc"], 16)),
        ("isvalid", str(batch["crc_valid"]).lower()),
    ]
    return " ".join(f"{name}: {value}" for name, value in fields)


def main():
    files = dumped(sys.stdin)
    batches = differing = 0
    for file, kafka in files.items():
        run = subprocess.run([percolog, "inspect", "segment", "--output", "json", file], capture_output=True, text=True)
        ours = [as_kafka(json.loads(line)) for line in run.stdout.splitlines()]
        batches += len(kafka)
        first = next((n for n, (left, right) in enumerate(zip(kafka, ours)) if left != right), None)
        if first is None and len(kafka) == len(ours) and run.returncode == 0:
            continue
        differing += 1
        print(f"{file}: {len(kafka)} batches by Kafka's tool, {len(ours)} by inspect (exit code {run.returncode})")
        if first is not None:
            print(f"  kafka:   {kafka[first]}\n  inspect: {ours[first]}")
        print(f"  {run.stderr.strip()}" if run.stderr else "", end="")
    print(f"{len(files)} files, {batches} batches compared, {differing} files differ")
    return 1 if differing or not batches else 0


sys.exit(main())
