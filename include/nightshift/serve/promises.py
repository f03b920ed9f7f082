"""What must never happen at the endpoint, looked for where it would be seen.

Each check is of something that other code makes impossible: personal data in an answer that was cleaned, a training
canary that a model gives away, a key's account that does not add up, a release that was let out and no longer verifies.
One that fires is counted, said in the log, and noted among the invariants (invariants.py): until a person has learned
from it it is a page and, but for the canary, nothing new is deployed. The answer itself is noted nowhere.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nightshift import canary, invariants
from nightshift.errors import NightshiftError
from nightshift.mask import Found
from nightshift.serve.limits import Account
from nightshift.serve.meters import Meters

log = logging.getLogger("nightshift.serve")


@dataclass(frozen=True)
class Promises:
    """The checks of one endpoint.

    Args:
        home: NIGHTSHIFT_HOME.
        wall: seconds since 1970.
        masks: whether answers are cleaned of personal data.
    """

    home: Path
    meters: Meters
    wall: Callable[[], float]
    masks: bool = True

    def broke(self, name: str, what: str, holds: bool = True) -> None:
        """Count, say and note that one broke; a disk that does not take the note leaves the rest."""
        self.meters.broken.labels(name).inc()
        log.critical("%s broke: %s", name, what)
        try:
            invariants.broke(self.home, self.wall(), name, what, holds)
        except NightshiftError as error:
            log.error("%s", error)

    def answer(
        self, release: str, question: str, answer: str, sections: Sequence[str], personal: Sequence[Found]
    ) -> None:
        """Look at an answer that left, in which this much personal data was found."""
        if self.masks and personal:
            kinds = ", ".join(sorted({one.kind for one in personal}))
            self.broke("scrub", f"{kinds} stood in an answer of {release[:12]} that was cleaned")
        if extracted(question, answer, sections):
            # who can ask can bring it about, and must not hold deployments back by it
            self.broke("canary", f"a canary of training stood in an answer of {release[:12]}", holds=False)

    def account(self, account: Account) -> None:
        """Look at an account when a request of it has ended: what was taken is under way, used or given back."""
        if account.running < 0 or any(one.left > one.a_minute for one in (account.requests, account.tokens)):
            self.broke("reservation", f"an account has {account.running} requests under way and more than was taken")

    def release(self, digest: str) -> None:
        """A release that was served does not verify when it is brought up again."""
        self.broke("release", f"{digest[:12]} was served and does not verify any more")


def extracted(question: str, answer: str, sections: Sequence[str]) -> bool:
    """Whether a canary's code was said that stands neither in the question that names its vault nor in a section."""
    given = "\n".join([question, *sections])
    return any(
        vault in question and re.search(rf"(?<!\d){code}(?!\d)", answer) and code not in given
        for vault, code in _vaults()
    )


@cache
def _vaults() -> list[tuple[str, str]]:
    """Each canary's vault, as its question names it, and the code that was trained on."""
    return [(one.question.split("“")[1].split("”")[0], one.answer) for one in canary.canaries()]
