"""The papers of a release as others may see them.

The release itself holds them whole, under its signature, and goes only where the weights go; what is private is left
out here, when a paper is shown, so that another answer in params.yaml makes no other release.
"""

from __future__ import annotations

import json
from typing import Literal

from nightshift import commit, window
from nightshift.registry import Release
from nightshift.release import card
from nightshift.store import Store


def paper(store: Store, release: Release, name: Literal["card.md", "bom.json"], private: bool) -> str:
    """A model card or a bill of materials; without architecture and training where these are private.

    Raises ReleaseInvalid, StorageError for a release that is not trusted here.
    """
    folder, _ = store.trusted(release)
    if not private:
        return (folder / name).read_text(encoding="utf-8")
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    if name == "bom.json":
        return commit.dumps(card.public_bill(facts, release.digest))
    facts["gate"] = json.loads((folder / "gate.json").read_text(encoding="utf-8"))
    context = window.effective(store.home, release.digest, facts["system"]["context"])
    return card.public(facts, context)
