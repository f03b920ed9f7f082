"""Sign tonight's release and say under which version it is to be published.

Runs in a clone of the night's commit, before the branch moves; its last line is JSON with the commit's message and the
tags that the publisher makes in the same push. What the gate said is an event of the audit before that, whatever it
was, and the message names that event (anchor.py). A digest that has a version is never versioned again, and one that
was ever assigned is not said again: an unchanged release is not a new one, and a rollback by hand stays. One that has a
version and was never assigned waits for a night that died before it was deployed: it is said again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from nightshift import anchor, audit, commit, errors, registry, signature
from nightshift.errors import CacheCorrupt, NightshiftError, ReleaseInvalid

VERDICT = "verdict"  # of the audit


def said(metrics: dict[str, Any], version: str | None, night: str) -> dict[str, Any]:
    """What the publisher is told about a night with these metrics of `release`."""
    verdict, digest = metrics.get("verdict", "INCONCLUSIVE"), metrics.get("digest")
    subject = f"{night}: {verdict}"
    body = f"Released {metrics['system']} as {version} ({digest})." if version else "Nothing was released."
    tags = []
    if version and digest:
        note = registry.message(digest, role=metrics["role"], system=metrics["system"], verdict=verdict)
        tags.append({"name": registry.tag(version), "message": note})
    return {"message": f"{subject}\n\n{body}", "tags": tags, "released": digest if version else None}


def again(metrics: dict[str, Any], known: registry.Release, assigned: bool, night: str) -> dict[str, Any]:
    """What the publisher is told about a night whose release has its version already."""
    done = said(metrics, None, night)
    if assigned:
        return done
    body = f"{known.version} ({known.digest}) was released before, and not deployed yet."
    return done | {"message": f"{done['message'].splitlines()[0]}\n\n{body}", "released": known.digest}


def anchored(done: dict[str, Any], home: Path) -> dict[str, Any]:
    """The same, with the audit's last event in the commit's message."""
    said = anchor.trailer(home)
    return done | {"message": f"{done['message']}\n\n{said}"} if said else done


def noted(clone: Path, home: Path, night: str, now: float, metrics: dict[str, Any]) -> None:
    """Keep what the gate said tonight, and why, in the audit: once, however often this runs."""
    if any((one.get("actor"), one.get("action")) == (night, VERDICT) for one in audit.events(home)):
        return
    path = clone / "metrics" / "gate.json"
    gate = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    verdict = metrics.get("verdict", "INCONCLUSIVE")
    why = [f"{candidate}: {' '.join(reasons)}" for candidate, reasons in gate.get("reasons", {}).items()]
    event = {"actor": night, "action": VERDICT, "target": metrics.get("digest"), "verdict": verdict}
    audit.write(home, now, **event, releases=gate.get("releases"), reason=" ".join([f"{verdict}.", *why]))


def publish(clone: Path, home: Path, night: str, now: float) -> dict[str, Any]:
    """Sign and name the release of the commit that `clone` stands on; `now` is in seconds since 1970.

    Raises ReleaseInvalid.
    """
    metrics = json.loads((clone / "metrics" / "release.json").read_text(encoding="utf-8"))
    noted(clone, home, night, now, metrics)
    if not metrics.get("released"):
        return said(metrics, None, night)
    if known := registry.by_digest(clone, metrics["digest"]):
        return again(metrics, known, registry.assigned(clone, known.digest), night)
    _check_out(clone)
    folder = commit.check(clone / registry.OUT)
    if commit.digest(folder) != metrics["digest"]:
        raise ReleaseInvalid("the release is not the one that its metrics name", str(folder), "run the night again")
    signature.sign(folder, home / "releases" / metrics["digest"] / "model.sig", home)
    version = registry.next_version(clone, minor=metrics["role"] == "winner")
    return said(metrics, version, night)


def _check_out(clone: Path) -> None:
    """Bring the release into the clone: from DVC's cache, or from its remote, where another worker made it."""
    from dvc.exceptions import CheckoutError, DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(clone)) as repo:
            try:
                repo.checkout(targets=[registry.OUT], force=True)
            except CheckoutError:
                if not repo.config["core"].get("remote"):
                    raise
                repo.fetch(targets=[registry.OUT])
                repo.checkout(targets=[registry.OUT], force=True)
    except DvcException as error:
        do = "run the night again, which makes it anew"
        raise CacheCorrupt(f"it is whole neither in DVC's cache nor in a remote ({error})", registry.OUT, do) from None


def main() -> None:
    """Print what is to be published; exits with the error's code."""
    try:
        home, night = Path(os.environ["NIGHTSHIFT_HOME"]), os.environ.get("DVC_AIRFLOW_RUN", "Night")
        done = anchored(publish(Path.cwd(), home, night, time.time()), home)
    except (NightshiftError, OSError) as error:
        if (found := errors.known(error)) is None:
            raise
        sys.exit(errors.tell("publish", found))
    print(json.dumps(done))


if __name__ == "__main__":
    main()
