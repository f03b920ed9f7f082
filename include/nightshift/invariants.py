"""What must never happen, and did: promises without a budget.

Who finds one broken (a training canary in an answer, personal data that left, a release that does not verify any more)
notes it in NIGHTSHIFT_HOME/watch/broken, one file each. As long as one is there people are told, and nothing new is
deployed, unless whoever has a key could bring it about; a person takes it away with the id of the postmortem, which the
audit keeps. The audit's own chain is one of them: it is looked at, not noted.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from nightshift import anchor, audit, commit
from nightshift.errors import AccessDenied

AUDIT = "audit"
NAME = re.compile(r"[a-z0-9-]{1,40}")


def broke(home: Path, now: float, name: str, what: str, holds: bool = True) -> None:
    """Note that `name` broke, at `now` seconds since 1970; of several times the first is kept. Raises ValueError.

    Args:
        holds: whether nothing new is deployed until it is lifted.
    """
    if not NAME.fullmatch(name) or name == AUDIT:
        raise ValueError(f"{name!r} is no name for an invariant")
    path = _folder(home) / f"{name}.json"
    if not path.is_file():
        commit.file(path, commit.dumps({"time": int(now), "what": what, "holds": holds}), 0o600)


def broken(home: Path, root: Path) -> dict[str, str]:
    """Every invariant that is broken, and what happened; `root` is the checkout whose nights name the audit."""
    found = {name: str(said["what"]) for name, said in _noted(home).items()}
    try:
        anchor.verify(home, root)
    except AccessDenied as error:
        found[AUDIT] = str(error).rstrip(".")
    return found


def holding(home: Path, root: Path) -> list[str]:
    """Names of those that are broken and hold back what is new."""
    free = {name for name, said in _noted(home).items() if not said.get("holds", True)}
    return [name for name in broken(home, root) if name not in free]


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


def _noted(home: Path) -> dict[str, dict[str, Any]]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(_folder(home).glob("*.json"))}


def _folder(home: Path) -> Path:
    return home / "watch" / "broken"
