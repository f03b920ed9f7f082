"""What need not run: decided from lock entries, Git's blobs and the cache's file names, without importing DVC.

A stage is unchanged when its command, params and the hashes of its deps equal an entry, and every object of every
out is in the cache. What cannot be told so (a folder of Git files, a dep inside an out, a format of params that DVC
reads) is left to DVC in a clone with what the stage made last, which is slower. An always_changed stage never is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dvc_engine.pipeline.lock import Entry, hashes
from dvc_engine.pipeline.project import Stage, outside
from dvc_engine.store import objects, uncached
from dvc_engine.store.commit import Commit, parsed

NOTHING = object()
UNTOLD = ""  # the md5 of what only DVC, or the rest of the night, can tell of


def rank(told: list[bool | None]) -> int:
    """2 where all is the same, 1 where only DVC can tell, 0 where something is not."""
    return 0 if False in told else 1 if None in told else 2


def unchanged(
    stage: Stage, entry: Entry | None, made: Mapping[str, str], commit: Commit, cache: Path, remote: bool = False
) -> bool | None:
    """Whether `entry` is what running `stage` would give; None where only DVC can tell.

    Args:
        entry: of this stage, or None.
        made: path → md5, or UNTOLD, of what it may read and Git does not hold: tonight's outs of others, tracked data.
        commit: where deps and params that Git holds are read.
        cache: the folder of DVC's cache.
        remote: whether what the cache lacks may be in one.
    """
    callback = not (stage.deps or stage.params or stage.outs)  # DVC runs that each time, as what is always changed
    if entry is None or stage.always_changed or callback:
        return False
    told = reads(stage, entry, made, commit, cache)
    if False not in told:  # else nobody asks for the outs, and they may be many files
        told += _outs(stage, entry, cache, remote)
    return (False, None, True)[rank(told)]


class Found(NamedTuple):
    """An entry that is what running a stage would give, or may be.

    Args:
        came: the commit that it came with; None for one that was made tonight.
        same: None where only DVC can tell.
        sure: whether nothing speaks against it: what only DVC can tell of is the same in Git.
    """

    entry: Entry
    came: str | None
    same: bool | None
    sure: bool


def choose(
    stage: Stage,
    entries: Iterable[tuple[Entry, str | None]],
    made: Mapping[str, str],
    commit: Commit,
    cache: Path,
    remote: bool,
) -> Found | None:
    """Of a stage's entries, each with its commit, the first that is sure, else the first that may be; None for none.

    The rest is as of `unchanged`.
    """
    maybe = list[Found]()
    for entry, came in entries:
        with suppress(AttributeError, KeyError, TypeError, ValueError):  # somebody broke it
            if (same := unchanged(stage, entry, made, commit, cache, remote)) is False:
                continue
            told = same or rank(reads(stage, entry, made, commit, cache)) == 2  # and DVC's remote has the outs, say
            if told or _alike(stage, came, made, commit):
                newer = next((one for one in maybe if of_the_same(one.entry, entry)), None)
                return newer or Found(entry, came, same, sure=True)
            maybe.append(Found(entry, came, same, sure=False))
    return maybe[0] if maybe else None


def of_the_same(one: Entry, other: Entry) -> bool:
    """Whether two entries are of the same command, deps and params."""
    return all(one.get(part) == other.get(part) for part in ("cmd", "deps", "params"))


def _alike(stage: Stage, came: str | None, made: Mapping[str, str], commit: Commit) -> bool:
    """Whether another commit has the same of what a stage reads of Git, and only DVC can hash: a folder, say.

    An entry of this commit itself may be of one before it. Of what lies in such a folder and Git does not hold, it has
    at most the `.dvc` file, which tells nothing of an import that is fetched anew.
    """
    if came in (None, commit.commit):
        return False
    there = Commit(commit.repository, str(came), commit.folder)
    read = [dep for dep in stage.deps if dep not in made]
    read += [file for file in stage.params if file not in made and commit.params(file) is None]
    if any(commit.named(one) is None or there.named(one) != commit.named(one) for one in read):
        return False
    within = [path for path in made if any(path.startswith(f"{dep}/") for dep in stage.deps)]
    return all(_tells(commit.content(f"{path}.dvc"), made[path]) for path in within)


def _tells(tracked: bytes | None, md5: str) -> bool:
    """Whether a `.dvc` file says what lies there tonight; of DVC before version 3 the md5 is UNTOLD."""
    return tracked is not None and (md5.encode() in tracked if md5 else b"deps:" not in tracked)


def reads(stage: Stage, entry: Entry, made: Mapping[str, str], commit: Commit, cache: Path) -> list[bool | None]:
    """Whether an entry is of the same command, deps and params; None where only DVC can tell."""
    if entry.get("cmd") != stage.cmd:
        return [False]
    return [*_deps(stage, entry, made, commit), *_params(stage, entry, made, commit, cache)]


def _deps(stage: Stage, entry: Entry, made: Mapping[str, str], commit: Commit) -> Iterator[bool | None]:
    known = hashes(stage, entry, "deps")
    yield set(known) == set(stage.deps)
    for dep in (one for one in stage.deps if one in known):
        found = (made[dep] or None) if dep in made else objects.md5(commit.content(dep))
        same = None if found is None else known[dep] == found  # a folder, a part of an out, or somewhere else
        if same is False and dep not in made and known[dep] == commit.checked_out(dep):
            same = None  # what a clone has is another matter: attributes are asked of the checkout
        yield same


def _outs(stage: Stage, entry: Entry, cache: Path, remote: bool) -> Iterator[bool | None]:
    known = hashes(stage, entry, "outs")
    yield set(known) == {out.path for out in stage.outs}
    for out in (one for one in stage.outs if one.path in known):
        if outside(out.path):
            yield None
        elif out.cached:
            yield _present(cache, known[out.path]) or (None if remote else False)


def _params(stage: Stage, entry: Entry, made: Mapping[str, str], commit: Commit, cache: Path) -> Iterator[bool | None]:
    locked = {stage.at(file): values for file, values in (entry.get("params") or {}).items()}
    yield set(locked) == set(stage.params)
    for file, keys in stage.params.items():
        values = _kept_params(file, made[file], cache) if file in made else commit.params(file)
        if values is None or file not in locked:
            yield None
        elif not keys:
            yield locked[file] == values
        else:
            yield set(keys) == set(locked[file]) and all(value(values, key) == locked[file][key] for key in keys)


def _kept_params(file: str, md5: str, cache: Path) -> Any:
    """A params file that a stage made, as data; None for a format that only DVC reads, and where nobody has it."""
    for store in (cache / uncached.FOLDER, cache):
        with suppress(OSError):
            return parsed(file, objects.place(store, md5).read_bytes())
    return None


def value(values: Any, key: str) -> Any:
    """The value at a dotted key; NOTHING, which equals no value, where there is none."""
    for step in key.split("."):
        if isinstance(values, Mapping) and step in values:
            values = values[step]
        elif isinstance(values, list) and step.isdigit() and int(step) < len(values):
            values = values[int(step)]
        else:
            return NOTHING
    return values


def _present(cache: Path, md5: str) -> bool:
    """Whether an object, and for a folder all that it lists, is in the cache; a damaged list is none."""
    held = objects.place(cache, md5)
    if not md5 or not held.is_file():
        return False
    if not md5.endswith(".dir"):
        return True
    return objects.sound(held) and all(objects.place(cache, one).is_file() for one in objects.listed(held))
