"""What became of every rollout: one line each step in NIGHTSHIFT_HOME/rollouts.jsonl.

The gateway writes it; a night reads whether its release was let through; a release that went back once is not tried
again, by any night or restart, until a person deploys it by name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from nightshift import audit, commit, registry
from nightshift.errors import AccessDenied, ReleaseInvalid
from nightshift.registry import PROD, Assignment, Release

FILE = "rollouts.jsonl"
Outcome = Literal["proposed", "begun", "advanced", "promoted", "back", "interrupted"]
BY_HAND = "by hand"  # instead of a strategy, where a person went back


@dataclass(frozen=True)
class Entry:
    """One thing that happened to a candidate.

    Args:
        time: seconds since 1970.
        digest: of the candidate; `against`, of the release that it was tried beside.
        step: the step that ended, or began first.
        outcome: `back` is for good, unless a person proposes it anew; `interrupted` is begun again.
        reason: why, in words.
        seconds: since the rollout, or the step, began.
        users: keys that it had answered so far.
    """

    time: float
    digest: str
    version: str
    against: str
    strategy: str
    step: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    users: int = 0

    @property
    def sent_back(self) -> bool:
        """Whether the endpoint sent a candidate back, and no person."""
        return self.outcome == "back" and self.strategy != BY_HAND

    @property
    def told(self) -> str:
        """Why, without what an engine or a disk said: of what the endpoint found wrong, what stands before the first
        colon. The rest, with paths and an engine's last words, is in the rollouts file of this machine alone."""
        return self.reason.partition(":")[0] if self.sent_back else self.reason


def write(home: Path, entry: Entry) -> None:
    """Keep an entry. Raises DiskFull."""
    commit.append(home / FILE, json.dumps(asdict(entry), sort_keys=True, ensure_ascii=False))


def read(home: Path) -> list[Entry]:
    """Every entry, oldest first; a line that is none is left out."""
    path, found = home / FILE, []
    for line in path.read_bytes().splitlines() if path.is_file() else []:  # of text U+2028 would end a line too
        with suppress(ValueError, TypeError):
            found.append(Entry(**json.loads(line)))
    return found


def bad(home: Path) -> frozenset[str]:
    """Digests of releases that went back, and that nobody proposed since."""
    return _bad(read(home))


def _bad(entries: list[Entry]) -> frozenset[str]:
    found: set[str] = set()
    for one in entries:
        if one.outcome == "back":
            found.add(one.digest)
        elif one.outcome == "proposed":
            found.discard(one.digest)
    return frozenset(found)


def _tried(entries: list[Entry]) -> frozenset[str]:
    """Digests of releases that are being tried, or that a person wants tried, though they served before."""
    found: dict[str, Outcome] = {one.digest: one.outcome for one in entries}
    return frozenset(digest for digest, outcome in found.items() if outcome not in ("promoted", "back"))


def settle(home: Path, made: Assignment, reason: str, now: float) -> None:
    """End the trial of a release that came into production by another way, so that nobody goes on with it later."""
    release = made.release
    if made.environment == PROD and release.digest in _tried(read(home)):
        write(home, Entry(now, release.digest, release.version, "", BY_HAND, "100 %", "promoted", reason))


def last(home: Path, digest: str) -> Entry | None:
    """What happened to a release last; None where nothing did."""
    return next((one for one in reversed(read(home)) if one.digest == digest), None)


def standing(repository: Path, home: Path, gone: frozenset[str] = frozenset()) -> registry.Standing:
    """What serves, is tried, and would be gone back to; `gone` are digests that went back, and no entry says so yet."""
    entries = read(home)
    return registry.standing(repository, _bad(entries) | gone, _tried(entries) - gone)


def back(repository: Path, home: Path, actor: str, reason: str, now: float) -> registry.Assignment:
    """Take back what came last: a candidate ends its trial, else the release before is put into production again.

    Weights, prompt, index and settings are one release, so that all of them go back at once; what went back is not
    tried again by a night. Returns the assignment that holds in production then. Raises AccessDenied without a reason,
    ReleaseInvalid where there is none to go back to, RepositoryError when another assignment came first.
    """
    if not reason.strip():
        raise AccessDenied("a reason is needed", "--reason", "say why it goes back")
    agreed = registry.upcoming(repository)  # read first: what is assigned meanwhile takes this number
    stands = standing(repository, home)
    current, target = stands.stable, stands.before
    if current and (tried := stands.candidate):
        audit.write(home, now, actor=actor, action="rollback", target=tried.digest, to=current.digest, reason=reason)
        write(home, Entry(now, tried.digest, tried.version, current.digest, BY_HAND, "its trial", "back", reason))
        return registry.assignments(repository)[-1]
    if current is None or target is None:
        do = "`nightshift release list` shows what there is"
        raise ReleaseInvalid("no release was in production before this one", "prod", do)
    audit.write(home, now, actor=actor, action="rollback", target=current.digest, to=target.digest, reason=reason)
    made = registry.assign(repository, target, number=agreed)
    write(home, Entry(now, current.digest, current.version, target.digest, BY_HAND, "100 %", "back", reason))
    return made


def proposed(
    repository: Path,
    home: Path,
    release: Release,
    actor: str,
    reason: str,
    now: float,
    approvers: Sequence[str] = (),
) -> registry.Assignment:
    """Try a release as a candidate, whatever became of it before.

    Raises ReleaseInvalid for one that was in production and did not go back, RepositoryError when another assignment
    came first.
    """
    served = [one.release.digest for one in registry.assignments(repository)]
    if release.digest in served and (release.digest == served[-1] or release.digest not in bad(home)):
        what = "it was in production before, and needs no trial"
        raise ReleaseInvalid(what, release.version, f"`nightshift promote {release.version} --to prod`")
    agreed = {"approvers": list(approvers)} if approvers else {}
    audit.write(home, now, actor=actor, action="propose", target=release.digest, reason=reason, **agreed)
    forgive(home, release, served[-1] if served else "", reason, now)
    return registry.assign(repository, release, registry.CANARY)


def forgive(home: Path, release: Release, against: str, reason: str, now: float) -> None:
    """Note that a person wants it, whatever became of it before. Raises DiskFull."""
    write(home, Entry(now, release.digest, release.version, against, "", "", "proposed", reason))
