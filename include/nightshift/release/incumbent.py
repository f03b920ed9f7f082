"""What tonight's systems are judged against.

Reads the digests of tonight's tables, the definition that this checkout holds, and the registry; writes the incumbent's
system, and `recipe.json` (with what the incumbent was trained on, for the papers of a refresh). The incumbent is the
release in production; but when tonight's recipe is that release's own, the one that it was itself judged against: a
night in which nothing changed then does nothing, and a worse recipe is always judged against the best. With nothing in
production it is absent.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from nightshift import commit, params, registry, stage
from nightshift.registry import Release
from nightshift.stage import Metrics, Work

NONE = "there is no release to be judged against"  # in the first night and in its repetitions: the same bytes
DEFINITION = ("include", "dvc.yaml", "versions.json")
# of params.yaml: no stage reads these, but `judge` which engine it is, and that makes no other system
BESIDE = ("night", "serve", "traces", "deployment", "environments", "watch", "notify")


def recipe(facts: dict[str, Any], root: Path) -> dict[str, Any]:
    """What made tonight's systems: the digest of every table, of every part of the definition, and of its values."""
    tables = {name: table["digest"] for name, table in facts["tables"].items()}
    parts = {part: definition(root, part) for part in DEFINITION} | {params.FILE: values(root / params.FILE)}
    return {"tables": tables, "definition": parts}


def values(path: Path) -> str:
    """sha256 over the values that stages read: not over comments, overlays, nor what runs beside them."""
    said = {key: value for key, value in params.parse(path).items() if key not in (*params.OTHER, *BESIDE)}
    return hashlib.sha256(commit.dumps(params.plain(said)).encode()).hexdigest()


def definition(root: Path, part: str) -> str:
    """sha256 over the names and contents of the files of one part that Git does not ignore."""
    asked = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard", part]
    listed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    names = sorted({name for name in listed.split("\0") if name and (root / name).is_file()})
    return hashlib.sha256("".join(f"{name}\0{commit.sha256(root / name)}\n" for name in names).encode()).hexdigest()


def against(repository: Path, tonight: dict[str, Any], scratch: Path) -> tuple[Release | None, str]:
    """The release to be judged against, or None with the reason."""
    in_production = registry.current(repository)
    if in_production is None:
        return None, NONE
    folder = registry.fetch(repository, in_production, scratch / in_production.digest)
    said = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    if said["recipe"] != tonight:
        return in_production, ""
    earlier = said["judged_against"]
    if earlier is None:
        return None, NONE
    return registry.by_digest(repository, earlier), "the release that production's was judged against is gone"


def run(facts: Path, out: Path, recipe_out: Path, work: Work) -> Metrics:
    """Bring the incumbent's system. Raises ReleaseInvalid when its files are not those that were released."""
    root = Path.cwd()
    tonight = recipe(json.loads(commit.check(facts).read_text(encoding="utf-8")), root)
    with tempfile.TemporaryDirectory(dir=out.parent if out.parent.is_dir() else None) as scratch:
        found, reason = against(root, tonight, Path(scratch))
        about: dict[str, Any] = {"recipe": tonight, "judged_against": None, "trained_on": {}}
        if found is not None:
            folder = registry.fetch(root, found, Path(scratch) / found.digest)
            trained = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))["trained_on"]
            about |= {"judged_against": found.digest, "trained_on": trained}
        commit.file(recipe_out, commit.dumps(about))
        if found is None:
            commit.absent(out, reason)
            return {"absent": reason}
        with commit.folder(out) as draft:
            commit.copy(folder / "system", draft)
    return {"judged_against": found.digest, "version": found.version}


if __name__ == "__main__":
    stage.main(run)
