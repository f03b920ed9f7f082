"""What happened to candidates, until it is written down: in the rollouts file, and what went back in the audit too.

An entry is remembered when it happens and written after what follows from it, which a full disk may not stop. The
rollouts file of this machine alone has the whole reason; whoever else may read why has `Entry.told`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nightshift import audit, rollouts
from nightshift.rollouts import Entry, Outcome
from nightshift.serve.rollout import Rollout


@dataclass
class Records:
    """The entries of one home that stand nowhere yet."""

    home: Path
    unwritten: list[Entry] = field(default_factory=list)
    _audited: Entry | None = None  # stands in the audit already, and not in the rollouts file
    _promoting: Rollout | None = None  # stands in the audit already, and not in the register

    @property
    def gone(self) -> frozenset[str]:
        """Digests that went back, and no file says so yet."""
        return frozenset(one.digest for one in self.unwritten if one.outcome == "back")

    def note(
        self, rollout: Rollout, outcome: Outcome, reason: str, wall: float, now: float, against: str, users: int
    ) -> None:
        """Remember what happened at `wall`, seconds since 1970, and at `now` by the clock of the rollout."""
        release, seconds = rollout.release, round(now - rollout.begun, 3)
        about = (release.digest, release.version, against, rollout.rules.strategy, str(rollout.step))
        self.unwritten.append(Entry(round(wall, 3), *about, outcome, reason, seconds, users))

    def promoting(self, rollout: Rollout, wall: float) -> None:
        """Write into the audit that this candidate is promoted, once, however often Git then refuses the tag.

        Raises DiskFull, AccessDenied for a damaged audit.
        """
        if self._promoting is not rollout:
            event = {"actor": "gateway", "action": "promote", "target": rollout.release.digest}
            audit.write(self.home, wall, **event, reason=rollout.passed)
            self._promoting = rollout

    def write(self) -> None:
        """Write down what happened. Raises DiskFull, AccessDenied for a damaged audit; what is left is tried again."""
        while self.unwritten:
            one = self.unwritten[0]
            if one.outcome == "back" and one is not self._audited:
                audit.write(self.home, one.time, actor="gateway", action="back", target=one.digest, reason=one.told)
                self._audited = one
            rollouts.write(self.home, one)
            del self.unwritten[0]
