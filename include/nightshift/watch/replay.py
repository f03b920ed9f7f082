"""Ask two releases the same question: the one that answered a trace, and another.

Both are fetched and verified as the endpoint does it, and started one after another, so that a machine that holds one
model is enough. The question comes from the words that `traces.content: scrubbed` kept of the trace, or from whoever
asks. Earlier turns of the conversation are never kept, so that an answer that hung on them may differ.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nightshift import content, engine, registry
from nightshift.answer import System
from nightshift.errors import NotKept, UsageError
from nightshift.registry import Release
from nightshift.retrieve import Hit
from nightshift.store import Store


@dataclass(frozen=True)
class Answer:
    """What one release says."""

    release: Release
    text: str
    sections: list[Hit]

    def as_json(self) -> dict[str, Any]:
        """As data; sections by name, without their text."""
        sections = [{key: value for key, value in asdict(one).items() if key != "body"} for one in self.sections]
        return {"release": asdict(self.release), "answer": self.text, "sections": sections}


def question(folder: Path, trace: str, given: str | None) -> str:
    """The question of a trace. Raises NotKept where its words were not kept and none is given."""
    kept = content.find(folder, trace)
    if given or (kept and kept["question"]):
        return given or str(kept and kept["question"])
    do = "give it by --question; `traces.content: scrubbed` in params.yaml keeps those to come, for some days"
    raise NotKept(f"the words of trace {trace} are not kept", str(folder), do)


def pair(repository: Path, digest: str, against: str | None) -> tuple[Release, Release]:
    """The release of a trace, and the one to compare: `against`, else the one in production, else the one before.

    Raises UsageError where there is no such version, or no other than the trace's own.
    """
    known = registry.releases(repository)
    own = next((one for one in known if one.digest == digest), None)
    versions = ", ".join(one.version for one in known) or "none"
    if own is None:
        raise UsageError(f"no version has the release {digest[:12]}", str(repository), f"there are {versions}")
    if against is not None:
        other = next((one for one in known if one.version == against), None)
        if other is None:
            raise UsageError(f"there is no version {against!r}", "--against", f"there are {versions}")
        return own, other
    current = registry.current(repository)
    before = [one.release for one in registry.assignments(repository)] + known
    other = next((one for one in [current, *reversed(before)] if one and one.digest != digest), None)
    if other is None:
        raise UsageError(f"{own.version} is the only version", str(repository), "release another first")
    return own, other


def ask(
    repository: Path,
    home: Path,
    state: Path,
    release: Release,
    asked: str,
    groups: Collection[str],
    threads: int,
    kind: engine.Kind = "openvino",
) -> Answer:
    """What a release answers to somebody of these groups. Raises ReleaseInvalid, StorageError."""
    folder, _ = Store(repository, home, state).trusted(release)
    system = System.open(folder / "system")
    hits = system.sections(asked, tuple(groups)) if system.settings["sections"] else []
    with engine.start(folder / "system", threads, kind=kind, cache=state / "graphs") as running:
        said = running.chat(system.messages(asked, hits), system.settings["max_new_tokens"])
    return Answer(release, said, hits)


def side_by_side(answers: tuple[Answer, Answer], width: int) -> str:
    """Both answers with their sections in two columns of `width` characters together."""
    column = max(20, (width - 3) // 2)
    left, right = (list(_lines(one, column)) for one in answers)
    return "\n".join(f"{a:<{column}} | {b}".rstrip() for a, b in zip_longest(left, right, fillvalue=""))


def _lines(answer: Answer, width: int) -> Iterator[str]:
    yield f"{answer.release.version} ({answer.release.digest[:12]})"
    yield ""
    yield from textwrap.wrap(answer.text or "(nothing)", width)
    yield ""
    for place, hit in enumerate(answer.sections, 1):
        named = f"{place}. {hit.title} ({hit.id}, {hit.score:.4g}) {hit.source}/{hit.path}"
        yield from textwrap.wrap(named, width, subsequent_indent="   ")
    if not answer.sections:
        yield "no sections"
