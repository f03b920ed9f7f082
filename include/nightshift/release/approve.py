"""Let out what the gate could not decide about: by a person, with a reason, audited.

When nothing was let out, the last night's release holds a candidate: the winner, or tonight's documents in the system
of the incumbent (refresh), which few questions decide about where there are few documents. An INCONCLUSIVE one may be
approved: it is signed, given a version and brought before users as a night would have done (handover.py). A NO-GO never
is, and one that the error budget holds back has to wait. Each step may be repeated after a kill: a signature, a version
and an assignment that are there already are not made again.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from nightshift import audit, registry, signature
from nightshift.errors import AccessDenied, RepositoryError
from nightshift.release.handover import by_hand, let_in
from nightshift.release.release import UNDECIDED
from nightshift.store import Store


def proposed(repository: Path, branch: str) -> tuple[str, dict[str, Any]]:
    """The last night's commit and the metrics of its release. Raises RepositoryError, AccessDenied."""
    shown = ["git", "-C", str(repository), "show", f"{branch}:metrics/release.json"]
    found = subprocess.run(shown, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise RepositoryError("no night was published here yet", f"branch {branch}", "type `make nightly`")
    metrics: dict[str, Any] = json.loads(found.stdout)
    if not metrics.get("role"):
        raise AccessDenied("the last night made no system", f"branch {branch}", "`nightshift night` says why")
    if metrics["released"]:
        what = f"the last night let out its {metrics['role']} by itself, and kept nothing else"
        raise AccessDenied(what, f"branch {branch}", f"wait for a night that ends {UNDECIDED}")
    if metrics["verdict_on_it"] != UNDECIDED:
        what = f"the verdict on the {metrics['role']} is {metrics['verdict_on_it']}; only {UNDECIDED} can be approved"
        raise AccessDenied(what, f"branch {branch}", "`nightshift night` shows the reasons")
    commit = ["git", "-C", str(repository), "rev-parse", branch]
    return subprocess.run(commit, capture_output=True, text=True, check=True).stdout.strip(), metrics


def approve(
    repository: Path,
    home: Path,
    state: Path,
    branch: str,
    who: str,
    reason: str,
    now: float,
    environment: str = registry.PROD,
) -> registry.Assignment:
    """Release the last night's candidate, and deploy it, or let the endpoint try it where one runs.

    Raises AccessDenied, ReleaseInvalid, RepositoryError.
    """
    if not reason.strip():
        raise AccessDenied("a reason is needed", "--reason", "say why this may be released")
    commit, metrics = proposed(repository, branch)
    digest = metrics["digest"]
    known = registry.by_digest(repository, digest)
    if known and registry.current(repository, environment) == known:
        raise AccessDenied(f"{known.version} is in {environment} already", f"branch {branch}", "nothing is left to do")
    role, verdict = metrics["role"], metrics["verdict_on_it"]
    version = registry.next_version(repository, minor=role == "winner")
    wanted = known or registry.Release(version, commit, digest, role)
    chosen = by_hand(repository, home, wanted, environment, int(now) // 60)
    store = Store(repository, home, state)
    folder = registry.fetch(repository, wanted, store.copy(digest))
    event = {"actor": who, "action": "approve", "target": digest, "version": wanted.version, "reason": reason.strip()}
    audit.write(home, now, **event, role=role, verdict=verdict)
    signature.sign(folder, store.signature(digest), home)
    if known is None:
        registry.version(repository, wanted, role=role, system=metrics["system"], verdict=verdict)
    return let_in(repository, home, wanted, environment, chosen, who, reason.strip(), now)
