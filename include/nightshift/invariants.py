"""What must never happen, and did: promises without a budget.

Who finds one broken (a training canary in an answer, a revoked key that was accepted, a release without a signature
that was served) notes it in NIGHTSHIFT_HOME/watch/broken, one file each. As long as one is there nothing new is
deployed; a person takes it away with the id of the postmortem, which the audit keeps. The audit's own chain is one of
them: it is looked at, not noted.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from nightshift import audit, commit
from nightshift.errors import AccessDenied

AUDIT = "audit"
NAME = re.compile(r"[a-z0-9-]{1,40}")


def broke(home: Path, now: float, name: str, what: str) -> None:
    """Note that `name` broke, at `now` seconds since 1970; of several times the first is kept. Raises ValueError."""
    if not NAME.fullmatch(name) or name == AUDIT:
        raise ValueError(f"{name!r} is no name for an invariant")
    path = _folder(home) / f"{name}.json"
    if not path.is_file():
        commit.file(path, commit.dumps({"time": int(now), "what": what}), 0o600)


def broken(home: Path) -> dict[str, str]:
    """Every invariant that is broken, and what happened."""
    noted = sorted(_folder(home).glob("*.json"))
    found = {path.stem: str(json.loads(path.read_text(encoding="utf-8"))["what"]) for path in noted}
    try:
        audit.verify(home)
    except AccessDenied as error:
        found[AUDIT] = str(error)
    return found


def lift(home: Path, now: float, who: str, name: str, postmortem: str) -> None:
    """Take one away: a person, with the id of what was learned. Raises AccessDenied."""
    path = _folder(home) / f"{name}.json"
    if not path.is_file():
        do = "restore the log from a copy" if name == AUDIT else "`nightshift slo show` names those that are"
        raise AccessDenied(f"no invariant {name!r} was noted as broken", str(path.parent), do)
    if not postmortem.strip():
        raise AccessDenied(
            "the id of a postmortem is needed", "--postmortem", "say where one can read what was learned"
        )
    audit.write(home, now, actor=who, action="lift", target=name, reason=postmortem.strip())
    path.unlink()


def _folder(home: Path) -> Path:
    return home / "watch" / "broken"
