#!/usr/bin/env python3
"""Compares the message tables with Kafka's own schemata.

Usage: wire_schemata.py SCHEMATA [TABLES]

SCHEMATA is a folder of Kafka's message JSON files (`common/message` in the jars kafka-clients,
kafka-group-coordinator, kafka-transaction-coordinator, kafka-share-coordinator, kafka-raft).
Every message there must be in the tables and the other way round, unless it has no valid version,
with equal name, kind, key, versions, flexible versions, stability and listeners, and every field
with equal name, type, versions, tag, versions in which it may be null, key mark and default.
Exits with 1 and one line per difference if there is any.
"""

import json
import pathlib
import re
import sys

MAX = 32767


def versions(text, otherwise=None):
    """(first, last) of "3", "3-7", "3+" or "none"."""
    if text is None:
        return otherwise
    text = text.strip()
    if text == "none":
        return None
    if text.endswith("+"):
        return (int(text[:-1]), MAX)
    first, _, last = text.partition("-")
    return (int(first), int(last or first))


def clamp(range_, within):
    if range_ is None:
        return None
    first, last = max(range_[0], within[0]), min(range_[1], within[1])
    return (first, last) if first <= last else None


def default(text, kind, nullable):
    """The value that a field has when nothing says otherwise."""
    if nullable and text in ("null", "None"):
        return None
    if kind.startswith("[]") or kind == "bytes" or kind == "records":
        return []
    if kind == "string":
        return text or ""
    if kind == "bool":
        return str(text).lower() == "true"
    if kind == "uuid":
        return text or "zero"
    if kind in ("float64",):
        return float(text or 0)
    if re.fullmatch(r"u?int\d+", kind):
        return int(str(text or "0"), 0)
    return "structure"


def field(message, name, kind, exists, tag, tagged, null, key, flexible, text):
    exists = clamp(exists, message["versions"])
    null = clamp(null, exists) if exists else None
    return {
        "name": name,
        "type": kind,
        "versions": exists,
        "tag": tag if tag is not None and clamp(tagged, message["versions"]) else None,
        "tagged": clamp(tagged, message["versions"]),
        "null": null,
        "key": key,
        "flexible": flexible,
        "default": default(text, kind, null is not None),
    }


def read_schema(path):
    text = re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.M)
    text = re.sub(r"//[^\"\n]*$", "", text, flags=re.M)
    schema = json.loads(text)
    message = {
        "name": schema["name"],
        "kind": schema["type"],
        "key": schema.get("apiKey"),
        "versions": versions(schema["validVersions"]),
        "unstable": bool(schema.get("latestVersionUnstable", False)),
        "listeners": sorted(schema.get("listeners", [])),
        "structures": {},
    }
    if message["versions"] is None:
        return None
    flexible = versions(schema.get("flexibleVersions"))
    message["flexible"] = flexible[0] if flexible else None

    def fields(owner, entries):
        result = []
        for entry in entries:
            name, kind = entry["name"], entry["type"]
            tagged = versions(entry.get("taggedVersions"))
            exists = versions(entry.get("versions"), tagged)
            result.append(
                field(
                    message,
                    name,
                    kind,
                    exists,
                    entry.get("tag"),
                    tagged,
                    versions(entry.get("nullableVersions")),
                    bool(entry.get("mapKey", False)),
                    entry.get("flexibleVersions") != "none",
                    entry.get("default"),
                )
            )
            if "fields" in entry:
                fields(kind.removeprefix("[]"), entry["fields"])
        message["structures"][owner] = result

    for common in schema.get("commonStructs", []):
        fields(common["name"], common["fields"])
    fields(schema["name"], schema["fields"])
    return message


def read_table(path):
    messages, message, open_ = [], None, []
    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        parts = re.split(r" {2,}", line.strip())
        if not line.startswith(" "):
            said = dict(part.split(" ", 1) for part in parts[2:] if " " in part)
            flexible = versions(said["flexible"])
            message = {
                "name": parts[0],
                "kind": parts[1],
                "key": int(said["key"]) if "key" in said else None,
                "versions": versions(said["versions"]),
                "unstable": "latest-unstable" in parts,
                "listeners": sorted(said["listeners"].split(",")) if "listeners" in said else [],
                "flexible": flexible[0] if flexible else None,
                "structures": {parts[0]: []},
            }
            messages.append(message)
            open_ = [(2, parts[0])]
            continue
        indentation = len(line) - len(line.lstrip())
        open_ = [entry for entry in open_ if entry[0] <= indentation]
        assert open_[-1][0] == indentation, f"{path}: {line}"
        head = parts[0].split(" as ")[0]
        if head.startswith("struct "):
            name = head.removeprefix("struct ")
            message["structures"].setdefault(name, [])
            open_.append((indentation + 2, name))
            continue
        name, kind = head.split(": ")
        said = {"default": None}
        for part in parts[1:]:
            word, _, rest = part.partition(" ")
            if word.startswith("v"):
                said["versions"] = versions(word[1:])
            elif word == "=":
                said["default"] = rest
            else:
                said[word] = rest
        tag = int(said["tag"]) if "tag" in said else None
        message["structures"][open_[-1][1]].append(
            field(
                message,
                name,
                kind,
                said["versions"],
                tag,
                said["versions"] if tag is not None else None,
                versions(said["null"][1:]) if "null" in said else None,
                "key" in said,
                said.get("flex") != "none",
                said["default"],
            )
        )
        kind = kind.removeprefix("[]")
        if kind[0].isupper():
            message["structures"].setdefault(kind, [])
            open_.append((indentation + 2, kind))
    return messages


def differences(ours, theirs):
    for key in ("kind", "key", "versions", "unstable", "listeners", "flexible"):
        if ours[key] != theirs[key]:
            yield f"{key}: {ours[key]} here, {theirs[key]} there"
    for name in sorted(ours["structures"].keys() | theirs["structures"].keys()):
        mine, other = ours["structures"].get(name), theirs["structures"].get(name)
        if mine is None or other is None:
            yield f"{name}: only {'there' if mine is None else 'here'}"
            continue
        if [entry["name"] for entry in mine] != [entry["name"] for entry in other]:
            yield f"{name}: fields differ: {[e['name'] for e in mine]}, {[e['name'] for e in other]}"
            continue
        for one, two in zip(mine, other):
            for key, value in one.items():
                if value != two[key]:
                    yield f"{name}.{one['name']}: {key}: {value} here, {two[key]} there"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    root = pathlib.Path(__file__).resolve().parents[2]
    tables = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else root / "src/wire/messages/tables"
    theirs = {}
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.json")):
        message = read_schema(path)
        if message is not None:
            theirs[message["name"]] = message
    ours = {}
    for path in sorted(tables.glob("*.txt")):
        for message in read_table(path):
            assert message["name"] not in ours, f"{message['name']} is in two tables"
            ours[message["name"]] = message
    found = 0
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs:
            lines = [f"only {'in the schemata' if name in theirs else 'in the tables'}"]
        else:
            lines = list(differences(ours[name], theirs[name]))
        for line in lines:
            print(f"{name}: {line}")
        found += len(lines)
    fields = sum(len(s) for message in ours.values() for s in message["structures"].values())
    print(f"{len(ours)} messages, {fields} fields, {len(theirs)} schemata: {found} differences")
    sys.exit(1 if found else 0)


main()
