"""What a night fixed, what a stage's task returns, and what its end means."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import md5
from math import isfinite
from pathlib import Path
from typing import Any
from unicodedata import category

from dvc_engine.pipeline import wire
from dvc_engine.pipeline.lock import Entry
from dvc_engine.store.commit import Commit

WELL = ("unchanged", "cached", "ran")  # outcomes of a stage that has an entry for tonight
# outcomes that another attempt may mend; Airflow asks for none of what a person cancelled
RETRIED = {"lock", "storage", "lost", "cancelled"}
# that a stage may say of its own failure
FAILED = {"failed", "refused"} | RETRIED
LETTERLESS = "\N{REPLACEMENT CHARACTER}"
COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # ECMA-48, 5.4: a control sequence
# DVC's words for a shell that a signal ended; the shell is the recorder
RECORDER_ENDED = re.compile(r"exited with -(\d+)$")
# that come from outside a stage: out of memory, a host or terminal that goes, a disk; a crash of its own is its own
OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGBUS}


@dataclass(frozen=True)
class Night:
    """What the first task fixed for all others.

    Args:
        repository: the Git repository of record; clones are made from it.
        commit: what runs.
        tags: name → object, the registry as it was.
        known: stage → its entries, the newest first, each with the commit whose metrics belong to it.
        nearest: of stages that do not run tonight the entry that others read, where it is not the newest.
        run: name of the run.
        folder: of the project in the repository; "" at its top.
        tip: of the branch of nights, when it was pinned; None where there was none.
        seen: that, and the nights that waited then.
        settled: stages that need not run, whatever the others do.
    """

    repository: str
    commit: str
    tags: Mapping[str, str]
    known: Mapping[str, Sequence[tuple[Entry, str]]]
    run: str
    folder: str = ""
    tip: str | None = None
    settled: Sequence[str] = ()
    nearest: Mapping[str, Entry] = field(default_factory=dict)
    seen: Sequence[str] = ()

    def dumps(self) -> str:
        """It as a text, for the tasks of the night."""
        return wire.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Night:
        """The night that `dumps` wrote."""
        return cls(**wire.loads(text))

    @property
    def root(self) -> Path:
        """The project of record."""
        return Path(self.repository, self.folder)

    @cached_property
    def entries(self) -> Mapping[str, Entry]:
        """Stage → its newest entry."""
        return {name: entries[0][0] for name, entries in self.known.items()}

    def came(self, stage: str) -> str | None:
        """The commit that the newest entry of a stage came with; None for a stage without one."""
        return next((commit for _, commit in self.known.get(stage, [])), None)

    def source(self, stage: str, entry: Entry) -> Commit | None:
        """The project at the commit that an entry of a stage came with; None for one that was made tonight."""
        came = next((commit for one, commit in self.known.get(stage, []) if one == entry), None)
        return self.at(came) if came else None

    def at(self, commit: str) -> Commit:
        """The project at a commit."""
        return _at(self.repository, commit, self.folder)

    @property
    def pinned(self) -> Commit:
        """The project at the commit that runs."""
        return self.at(self.commit)


@lru_cache(maxsize=256)
def _at(repository: str, commit: str, folder: str) -> Commit:
    """The project at a commit, the same for all who ask: what was read of it once is known."""
    return Commit(Path(repository), commit, folder)


@dataclass(frozen=True)
class Result:
    """What a stage's task returns; small enough to travel by value.

    `outcome` is unchanged, cached, ran, refused, failed, lock, storage, lost or cancelled; `cached` where an
    older entry, or DVC's run cache, had what its command makes of this input, and it was not started. `files` are those
    of the `cache: false` outs that are short texts, by path. `undeclared` is what it wrote and dvc.yaml does not name,
    `changed_deps` those of its deps, or files in them, that it wrote on in; `mended`, what of these was damaged on this
    worker.
    `report` is what the stage itself wrote to $DVC_AIRFLOW_OUTCOME. `energy_joules` is what the processors' packages
    took while its commands ran, all that ran beside them included; None where the machine does not tell.
    `cpu_seconds` is of its commands; it `began` so many seconds after the epoch. It `rests_on` stages, by name → digest
    of what that had made then.
    """

    stage: str
    outcome: str
    seconds: float = 0.0
    memory_bytes: int = 0
    entry: Entry | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    sentence: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)
    undeclared: Sequence[str] = ()
    changed_deps: Sequence[str] = ()
    energy_joules: float | None = None
    cpu_seconds: float = 0.0
    began: float = 0.0
    mended: Sequence[str] = ()
    rests_on: Mapping[str, str] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        """Whether the stage has an entry for tonight."""
        return self.outcome in WELL

    @property
    def warnings(self) -> list[str]:
        """What its people are to know, although it ended well."""
        told = {
            "wrote what it does not declare, and no other stage sees; "
            "add what others read to its outs": self.undeclared,
            "wrote in what it reads, and no other stage sees that; "
            "let it write a copy, and make that an out": self.changed_deps,
            "reads what was damaged on this worker; look at its disk": self.mended,
        }
        return [f"{what}:" + "".join(f"\n- {path}" for path in paths) for what, paths in told.items() if paths]

    def resting(self, above: Mapping[str, Result], began: float) -> Result:
        """This, of a stage that began then and read what these had made."""
        return replace(self, began=began, rests_on={name: one.made for name, one in above.items()})

    def outdated(self, now: Mapping[str, Result]) -> str | None:
        """A stage that has made something else since this one read it; None for none."""
        return next((name for name, made in self.rests_on.items() if name in now and now[name].made != made), None)

    @cached_property
    def made(self) -> str:
        """A digest of what it made."""
        outs = wire.dumps((self.entry or {}).get("outs")).encode()
        return md5(outs, usedforsecurity=False).hexdigest()[:16]

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Result:
        """The result that `as_json` wrote; other keys are left out."""
        known = {name: value for name, value in data.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, "entry": wire.loads(known["entry"]) if known.get("entry") else None})

    def as_json(self) -> dict[str, Any]:
        """The result as data for XCom and night.json.

        The entry is a text of its own (wire.py): PostgreSQL sorts the keys of JSON, too, and in dvc.lock they stand as
        DVC has them.
        """
        entry = None if self.entry is None else wire.dumps(self.entry)
        return json.loads(json.dumps(asdict(self) | {"entry": entry}, default=str))


def standing(night: Night, stages: Iterable[str]) -> dict[str, Result]:
    """Results of stages that do not run tonight: the entries that others read, of those that have one."""
    read = {**night.entries, **night.nearest}
    return {name: Result(name, "unchanged", entry=read[name]) for name in stages if name in read}


def numbers(files: Mapping[str, str]) -> dict[str, Any]:
    """What a stage measured: its metrics files that are JSON objects, by path → text."""
    found: dict[str, Any] = {}
    for path, content in files.items():
        if path.endswith(".json"):
            with suppress(ValueError):
                said = wire.measured(content)
                found |= said if isinstance(said, dict) else {}
    return found


def failure(
    code: int, record: Mapping[str, Any], report: Mapping[str, Any], result: Mapping[str, Any]
) -> tuple[str, str]:
    """Outcome and sentence of a stage that did not end well."""
    tail = printable("\n".join(record.get("tail", [])))
    if result.get("lacking"):  # what the stage said of its input comes from this
        return str(result["error"]), str(result["sentence"])
    if str(report.get("outcome")) in FAILED:
        return str(report["outcome"]), str(report.get("sentence", ""))
    if record.get("exceeded_bytes"):
        took, had = record["exceeded_bytes"] / 1e9, record["allowed_bytes"] / 1e9
        return "failed", f"its command took {took:.2f} GB of memory, and meta.airflow.memory lets it have {had:.2f}"
    if code < 0 or record.get("signal") in OUTSIDE:
        number = -code if code < 0 else record["signal"]
        return "lost", f"it was ended by {_signal(number)} (out of memory, or a worker that died)\n{tail}".rstrip()
    if record and record["code"] != 0:
        ended = f" ({_signal(record['signal'])})" if record.get("signal") else ""
        return "failed", f"its command ended with {record['code']}{ended}\n{tail}".rstrip()
    said = str(result.get("sentence", f"the child ended with {code}"))
    if by := RECORDER_ENDED.search(said):
        return "lost", f"the process that records its command was ended by {_signal(int(by[1]))}"
    return str(result.get("error", "lost")), said


def printable(text: str) -> str:
    """A text without what a terminal obeys: colours go, and of what is no letter at all one sign stays for a row."""
    kinds = ((one, category(one)) for one in COLOURS.sub("", text))
    plain = "".join(LETTERLESS if kind in ("Cc", "Cn", "Cs") and one not in "\n\t" else one for one, kind in kinds)
    return re.sub(f"{LETTERLESS}+", LETTERLESS, plain)


def of_disk(error: OSError) -> str:
    """What a disk or a share said, behind the path that it names, if it names one."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def plain(said: Any) -> Any:
    """Data of JSON whose texts, and names, are printable: PostgreSQL takes no NUL, and no half a pair of UTF-16."""
    if isinstance(said, str):
        return printable(said)
    if isinstance(said, float) and not isfinite(said):  # as of 1e999
        return str(said)
    if isinstance(said, Mapping):
        return {plain(key): plain(value) for key, value in said.items()}
    return [plain(one) for one in said] if isinstance(said, list) else said


def _signal(number: int) -> str:
    """A signal's name; those of real time have numbers alone."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
