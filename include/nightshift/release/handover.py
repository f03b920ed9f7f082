"""How a release comes before the users of an environment: held back, tried by the endpoint first, or at once.

It is one way for a night, for an approval and for a promotion. What was promised of the endpoint may leave no room for
a change; where an endpoint runs and answers by another release, it takes this one through its rollout; with nothing in
production, or no endpoint that could try it, the assignment is made at once. Going back is never held back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nightshift import params, registry, rollouts, slo
from nightshift.counts import Counts
from nightshift.errors import AccessDenied
from nightshift.registry import PROD, Assignment, Release
from nightshift.serving import Rollouts


@dataclass(frozen=True)
class Way:
    """How one release comes before its users.

    Args:
        held: why it has to wait; "" when it has not.
        tried: whether the endpoint is to try it first.
    """

    held: str = ""
    tried: bool = False


def way(repository: Path, settings: Path, home: Path, release: Release, environment: str, minute: int) -> Way:
    """The way of one release.

    Args:
        settings: folder with the params.yaml and the policies that hold.
        minute: now, minutes since 1970.

    Raises ParamsError for a policy or an objective that cannot be read.
    """
    current = registry.current(repository, environment)
    if environment != PROD or current in (None, release):
        return Way()
    said = slo.may_release(release.role, home, settings, minute)
    if not said.allowed:
        return Way(held=said.reason)
    immediate = params.load(settings / params.FILE, Rollouts).strategy == "immediate"
    return Way(tried=not immediate and Counts(home).since(minute) is not None)


def by_hand(repository: Path, home: Path, release: Release, environment: str, minute: int) -> Way:
    """The way of one that a person brings; back to one that was there before, and did not go back, is free.

    Raises AccessDenied where it has to wait.
    """
    if registry.assigned(repository, release.digest, environment) and release.digest not in rollouts.bad(home):
        return Way()
    found = way(repository, repository, home, release, environment, minute)
    if found.held:
        raise AccessDenied(found.held, release.version, "`nightshift slo show` says how the objectives stand")
    return found


def let_in(
    repository: Path,
    home: Path,
    release: Release,
    environment: str,
    found: Way,
    who: str,
    reason: str,
    now: float,
    number: int | None = None,
    approvers: Sequence[str] = (),
) -> Assignment:
    """Assign it as a person decided, and others agreed: as a candidate where it is to be tried.

    Raises RepositoryError when another assignment came first.
    """
    if found.tried:
        return rollouts.proposed(repository, home, release, who, reason, now, approvers)
    if environment == PROD and release.digest in rollouts.bad(home):
        rollouts.forgive(home, release, "", reason, now)
    made = registry.assign(repository, release, environment, number)
    rollouts.settle(home, made, reason, now)
    return made
