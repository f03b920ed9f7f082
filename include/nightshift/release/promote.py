"""Promote one digest through the environments: whoever proposes it does not approve it, and it is written down.

A release goes to an environment only from the one before it, whole, signed with a key that is trusted today. Where the
environment asks for approvals, the first who promotes proposes, and others who promote the same approve; proposal and
approvals are events of the audit, so that nobody can add one unseen. They name the number of the assignment that they
are about: once another assignment has that number they are void, and what everybody agreed on is exactly what happens
(the tag of the assignment can be made once). A release that went back has to be agreed on anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift import audit, openslo, registry
from nightshift.deployment import Environment, Environments
from nightshift.errors import AccessDenied, ParamsError
from nightshift.registry import Assignment, Release
from nightshift.release import remote
from nightshift.release.handover import by_hand, let_in
from nightshift.store import Store

PROPOSED, APPROVED, PROMOTED = "propose", "approve-promotion", "promote"
BACK = ("back", "rollback")  # after which what was agreed before is void: nobody knew of it then
# what is done → the scope of a key that may do it
RIGHTS = {PROPOSED: "deploy:propose", PROMOTED: "deploy:propose", APPROVED: "deploy:approve"}


@dataclass(frozen=True)
class Person:
    """Who acts, and what their key lets them do; a user of the machine may do all."""

    name: str
    scopes: frozenset[str] = frozenset(RIGHTS.values())


@dataclass(frozen=True)
class Standing:
    """How far a promotion is.

    Args:
        proposer: who proposed it; None when nobody has.
        approvers: who approved it, in order.
        needed: approvals that the environment asks for.
        made: the assignment, once there are enough; to `canary` where the endpoint tries it first.
    """

    proposer: str | None
    approvers: tuple[str, ...]
    needed: int
    made: Assignment | None = None


def promote(
    store: Store, environments: Environments, name: str, to: str, who: Person, reason: str, now: float
) -> Standing:
    """Propose, approve or make a promotion of the release `name`, whichever is next, as `who`.

    Where an endpoint runs, it tries it first (handover.py). Raises ReleaseInvalid for a release that was never
    released, altered, unsigned or signed with a replaced key; AccessDenied for one that skips an environment, a
    proposer who approves, a scope that is missing, no reason, or an error budget that is spent; RepositoryError when
    another assignment came first.
    """
    if not reason.strip():
        raise AccessDenied("a reason is needed", "--reason", "say why it may go there")
    place, before = _places(environments, to)
    if not (store.repository / openslo.POLICIES / place.slo).is_dir():
        raise ParamsError(
            f"{to} has no objectives", str(openslo.POLICIES / place.slo), "write them there, or name others"
        )
    release = registry.find(store.repository, name)
    if before and not registry.assigned(store.repository, release.digest, before.name):
        do = f"promote it to {before.name} first"
        raise AccessDenied(f"it was never in {before.name}, which comes before {to}", release.version, do)
    if registry.current(store.repository, to) == release:
        raise AccessDenied(f"it is in {to} already", release.version, "nothing is left to do")
    store.trusted(release)
    number = registry.upcoming(store.repository, to)
    said = standing(store.home, place, release, number)
    chosen = by_hand(store.repository, store.home, release, to, int(now) // 60)
    action = _next(said, who.name)
    ends = APPROVED if who.name in said.approvers else PROMOTED  # who approved may type it again when a push failed
    if (right := RIGHTS[action or ends]) not in who.scopes:
        raise AccessDenied(f"the key of {who.name} lacks the scope {right}", "--key", "use one that has it")
    event = {
        "actor": who.name,
        "target": release.digest,
        "version": release.version,
        "environment": to,
        "number": number,
    }
    if action is not None:
        audit.write(store.home, now, action=action, reason=reason.strip(), **event)
        said = standing(store.home, place, release, number)
    if len(said.approvers) < said.needed:
        return said
    if place.target:
        remote.push(store, release, place.target)
    if not chosen.tried:  # else the endpoint promotes it, or sends it back, and says so itself
        audit.write(store.home, now, action=PROMOTED, reason=reason.strip(), approvers=list(said.approvers), **event)
    about = (release, to, chosen, who.name, reason.strip(), now, number, said.approvers)
    made = let_in(store.repository, store.home, *about)
    return Standing(said.proposer or who.name, said.approvers, said.needed, made)


def standing(home: Path, place: Environment, release: Release, number: int) -> Standing:
    """What the audit says of this promotion. Raises AccessDenied when the audit was changed."""
    proposer: str | None = None
    approvers: list[str] = []
    for event in _events(home, place.name, release, number):
        if event["action"] in BACK:
            proposer, approvers = None, []
        elif event["action"] == PROPOSED:
            proposer = proposer or event["actor"]
        elif event["actor"] not in (proposer, *approvers):
            approvers.append(event["actor"])
    return Standing(proposer, tuple(approvers), place.approvals)


def _next(said: Standing, who: str) -> str | None:
    """What `who` does by promoting now; None where nobody is left to ask. Raises AccessDenied for the proposer."""
    left = said.needed - len(said.approvers)
    if left <= 0:
        return None
    if said.proposer is None:
        return PROPOSED
    if who == said.proposer:
        do = f"{left} other{' has' if left == 1 else 's have'} to type the same"
        raise AccessDenied(f"{who} proposed it, and who proposes does not approve", "", do)
    return None if who in said.approvers else APPROVED


def _events(home: Path, environment: str, release: Release, number: int) -> Iterator[dict[str, Any]]:
    """Proposal and approvals of one promotion, and what sent the release back, in order."""
    audit.verify(home)
    for said in audit.events(home):
        about = (said.get("environment"), said.get("target"), said.get("number"))
        agreed = said.get("action") in (PROPOSED, APPROVED) and about == (environment, release.digest, number)
        if agreed or (said.get("action") in BACK and said.get("target") == release.digest):
            yield said


def _places(environments: Environments, to: str) -> tuple[Environment, Environment | None]:
    """The environment of this name, and the one before it."""
    names = [one.name for one in environments.items]
    if to not in names:
        raise ParamsError(f"no environment {to!r}", "--to", f"environments.items has {', '.join(names)}")
    return environments.items[names.index(to)], environments.before(to)
