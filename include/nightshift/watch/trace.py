"""From an answer back to the documents: a trace's release, prompt and sections, and on to the raw source rows.

Reads the local traces (NIGHTSHIFT_HOME/traces), the registry's tags, and at the release's commit, through DVC, the
release's own papers, the section tables from data/unique to data/raw, and data/sources.json. A section's row names the
row that it was made from (`parent`), so that each step is read and none is guessed. Nothing is checked out. Where the
release came in a bundle, the way ends at the section that it answered from.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nightshift import documents, otlp, registry, segments
from nightshift.attributes import NAMES
from nightshift.errors import NotKept, RepositoryError, UsageError
from nightshift.past import Past, Unpacked
from nightshift.store import Store

SHORTEST = 8  # hex digits that may stand for a trace


@dataclass(frozen=True)
class Asked:
    """One request of a trace: the spans that the gateway wrote, the root first."""

    spans: list[dict[str, Any]]

    @property
    def trace(self) -> str:
        """32 hex digits."""
        return str(self.spans[0]["trace"])

    @property
    def start_ns(self) -> int:
        """When it came, nanoseconds since 1970."""
        return int(self.spans[0]["start_ns"])

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (int(self.spans[0]["end_ns"]) - self.start_ns) / 1e9

    @property
    def steps(self) -> list[tuple[str, float]]:
        """Name and seconds of each step."""
        return [(one["name"], (one["end_ns"] - one["start_ns"]) / 1e9) for one in self.spans[1:]]

    @cached_property
    def said(self) -> dict[str, Any]:
        """What its spans say together, by the words of attributes.py."""
        names = [(name, value) for span in reversed(self.spans) for name, value in span["attributes"].items()]
        return {NAMES.get(name, name): value for name, value in names}

    @property
    def sections(self) -> list[tuple[str, float]]:
        """Id and score of each section that it was answered from."""
        return list(zip(self.said.get("sections", []), self.said.get("scores", []), strict=True))


def find(folder: Path, identifier: str) -> list[Asked]:
    """The requests of a trace, the newest first; the first digits of its id will do.

    Raises UsageError for what is no id or begins several, NotKept for one that is not there.
    """
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},32}}", identifier):
        do = f"give its id, {SHORTEST} to 32 hex digits, as an answer's x-trace-id has it"
        raise UsageError(f"{identifier[:40]!r} is no trace", "", do)
    known = segments.files(folder)
    found = [
        Asked(spans)
        for path in reversed(known)
        for line in segments.lines(path, identifier.encode())
        if (spans := otlp.read(line)) and spans[0]["trace"].startswith(identifier) and spans[0]["name"] != "stage"
    ]
    ids = {one.trace for one in found}
    if len(ids) > 1:
        raise UsageError(f"{len(ids)} traces begin with {identifier}", "", "give more of its digits")
    if not found:
        since = f"the oldest that is kept began at {_time(known[0])}" if known else "none was ever written here"
        raise NotKept(f"there is no trace {identifier}: {since}", str(folder), "look at traces.days in params.yaml")
    return sorted(found, key=lambda one: -one.start_ns)


@dataclass(frozen=True)
class Origin:
    """Where a release came from."""

    version: str
    digest: str
    commit: str | None  # None where it came in a bundle
    run: str
    prompt_file: str | None  # in Git at that commit, where it is the very prompt
    corpus: dict[str, Any]  # of facts.json: digest, rows, licences
    lineage: dict[str, Any]


@dataclass(frozen=True)
class Walked:
    """A section, and what it was made from: one of each table, the last the raw one, and the source file."""

    id: str
    score: float
    rows: list[dict[str, Any]]
    file: dict[str, Any] | None  # of data/sources.json: path, bytes, sha256

    @property
    def row(self) -> dict[str, Any]:
        """Its row in the table that is searched."""
        return self.rows[0]


def origin(store: Store, asked: Asked) -> tuple[Origin, Past]:
    """The release that answered. Raises RepositoryError for one that this repository does not know, StorageError."""
    repository, digest = store.repository, str(asked.said.get("release", ""))
    known = registry.by_digest(repository, digest)
    at = known.commit if known else str(asked.said.get("commit", ""))
    if not at:
        what = f"no version has the release {digest[:12] or 'of this trace'}"
        raise RepositoryError(what, str(repository), "go to the repository that it was published in")
    past = Past(repository, at)
    made_here = past.published
    if not made_here:
        past = Unpacked(repository, at, store.copy(digest))
    facts = json.loads(past.read("release/facts.json"))
    version = known.version if known else str(asked.said.get("version", ""))
    subject = past.git("log", "-1", "--format=%s").decode(errors="replace")
    made = Origin(
        version,
        digest,
        at if made_here else None,
        subject.partition(":")[0],
        _prompt_file(past, asked),
        facts["tables"]["unique"],
        json.loads(past.read("release/lineage.json")),
    )
    return made, past


def walk(past: Past, sections: Sequence[tuple[str, float]]) -> list[Walked]:
    """Each section back to its raw row and its source file. Raises StorageError where a table is not to be had."""
    wanted = {id: id for id, _ in sections}  # section → the row to look for in the next table
    rows: dict[str, list[dict[str, Any]]] = {id: [] for id in wanted}
    for table in past.tables:
        found = past.rows(table, list(wanted.values()))
        for id, row in list(wanted.items()):
            if row in found:
                rows[id].append({"table": table, **found[row]})
                wanted[id] = found[row]["parent"]
            else:
                del wanted[id]
    files = {documents.key(one["source"], one["path"]): one for one in past.sources()}
    return [Walked(id, score, rows[id], files.get(wanted.get(id, ""))) for id, score in sections if rows[id]]


def _prompt_file(past: Past, asked: Asked) -> str | None:
    """The file of include/prompts that is the prompt, at the release's commit."""
    path = f"include/prompts/{asked.said.get('prompt_name')}.yaml"
    content = past.git_file(path)
    return path if content and hashlib.sha256(content).hexdigest() == asked.said.get("prompt") else None


def _time(path: Path) -> str:
    return _stamp(segments.opened(path))


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def as_json(asked: Asked, made: Origin, walked: Sequence[Walked], bodies: bool) -> dict[str, Any]:
    """All of it as data; the text of rows only where it is asked for: raw rows are not scrubbed."""
    sections = [
        {
            "id": one.id,
            "score": one.score,
            "rows": [{key: row[key] for key in row if bodies or key != "body"} for row in one.rows],
            "file": one.file,
        }
        for one in walked
    ]
    about = {"trace": asked.trace, "time": asked.start_ns / 1e9, "seconds": asked.seconds, "steps": asked.steps}
    return about | {"attributes": asked.said, "release": vars(made), "sections": sections}


def told(asked: Asked, made: Origin) -> str:
    """The request and the release that answered it, in lines for a person."""
    said = asked.said
    first = f", the first token after {said['first_token_s']:.2f} s" if "first_token_s" in said else ""
    tokens = f"{said.get('input_tokens', 0)} tokens read, {said.get('output_tokens', 0)} written"
    ended = f"error {said['error']}" if "error" in said else f"status {said.get('status', '?')}"
    same = "" if said.get("corpus") in (None, made.corpus["digest"]) else " (another than the trace names!)"
    notes = [word for word in ("abstained",) if said.get(word)]
    notes += sorted(
        f"{name.removeprefix('nightshift.')} {count}" for name, count in said.items() if name.startswith("nightshift.")
    )
    lines = [
        f"Trace {asked.trace}: {said.get('route', '?')} at {_stamp(asked.start_ns / 1e9)}, key {said.get('key', '?')}.",
        f"  {ended}, {asked.seconds:.2f} s{first}; {tokens}; {', '.join(said.get('finish', []))}".rstrip("; "),
        "  " + ", ".join(f"{name} {1000 * seconds:,.1f} ms" for name, seconds in asked.steps),
        *(["  " + ", ".join(notes)] if notes else []),
        f"Release {made.version} ({made.digest}), side {said.get('side', 'stable')}.",
        f"  Commit {made.commit}, published by the night {made.run}."
        if made.commit
        else "  It came in a bundle: the rows that its sections were made from are where it was made.",
        *([_prompt(said, made)] if "prompt" in said else []),  # an abstention has none
        f"  Corpus {made.corpus['digest']}{same}: {made.corpus['rows']:,} sections.",
    ]
    return "\n".join(lines)


def _prompt(said: dict[str, Any], made: Origin) -> str:
    place = f": {made.prompt_file} at that commit" if made.prompt_file else ""
    return f"  Prompt {said.get('prompt_name', '?')} (sha256 {said['prompt']}){place}."


def told_sections(walked: Sequence[Walked], bodies: bool) -> str:
    """The sections with the way back of each, in lines for a person."""
    lines = ["Sections:"] if walked else ["No sections: it was answered without any."]
    for place, one in enumerate(walked, 1):
        row = one.row
        lines.append(f"  {place}. {row['title']} ({one.id}, score {one.score:.4g}): {row['source']}/{row['path']}")
        lines.append("     " + " < ".join(f"{of['table']} {of['id']} (content {of['content']})" for of in one.rows))
        if one.file:
            lines.append(f"     file {one.file['path']}, {one.file['bytes']:,} bytes, sha256 {one.file['sha256']}")
        if bodies:
            lines += ["     | " + line for line in one.rows[-1]["body"].splitlines()]
    return "\n".join(lines)
