"""Find the window in which a release finds a planted fact (window.py), asking the engine that would serve it.

A night does it once for each release, after the release was deployed, so that nobody waits for it; from then on the
endpoint says the certified window. A release that finds no fact serves all the same, as the gate let it out, and the
night says what was found: an adapter that learned its answers by heart may no longer read what it is shown.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nightshift import checkout, engine, params, registry, window
from nightshift.answer import System
from nightshift.errors import NightshiftError, known, tell
from nightshift.registry import Release
from nightshift.sections import Compute, Night
from nightshift.serving import Engines
from nightshift.store import Store
from nightshift.window import Certificate


def certify(store: Store, settings: Path, release: Release, tokens: int) -> Certificate:
    """Certify a release, reading so many tokens at most, and keep the certificate. Raises ReleaseInvalid, StorageError.

    `settings` is the params.yaml that says how it is served.
    """
    system = System.open(store.trusted(release)[0] / "system")
    compute, kind = params.load(settings, Compute), params.load(settings, Engines).kind
    with engine.start(system.folder, compute.threads, compute.device, kind, store.state / "graphs") as running:
        found = window.certify(system, running.chat, tokens)
    window.store(store.home, release.digest, found)
    return found


def tonight(store: Store, clone: Path) -> dict[str, Any]:
    """Certify what the night of the commit that `clone` stands on released, unless it was; for night.json."""
    digest = json.loads((clone / "metrics" / "release.json").read_text(encoding="utf-8")).get("digest")
    settings = clone / params.FILE
    found, tokens = registry.by_digest(store.repository, str(digest)), params.load(settings, Night).certify_tokens
    if found is None or not tokens or window.certified(store.home, found.digest):
        return {}
    said = certify(store, settings, found, tokens)
    return {"window": {"certified": said.window, "context": said.context, "reached": said.reached}}


def main() -> None:
    """Print what was found. Nothing that goes wrong here undoes the night: the release is out, and it is said."""
    repository, home = Path(os.environ["DVC_AIRFLOW_REPOSITORY"]), Path(os.environ["NIGHTSHIFT_HOME"])
    store = Store(repository, home, checkout.state(repository)[0])
    try:
        said = tonight(store, Path.cwd())
    except (NightshiftError, OSError) as error:
        if (found := known(error)) is None:
            raise
        tell("certify", found)
        said = {"window": {"certified": None, "why_not": str(found)}}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
