"""What mends a damaged file of an out: where DVC's cache keeps it, and whether the damage is there.

DVC trusts an object of its cache that is read-only, and would hand out the damaged one again; a stage that runs anew
would not replace it. So the remedy of a damage in the cache begins with the removal of that object, by name.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path


def remedy(out: Path, name: str) -> str:
    """What to do about file `name` of an out, for a person who stands in the project's folder."""
    held = None
    with suppress(OSError):
        held = place(Path("dvc.lock").read_text(encoding="utf-8"), Path(), out.as_posix(), name)
    if held is None:
        return f"remove {out} and run the stage that makes it (`dvc repro`)"
    if held.is_file() and hashlib.md5(held.read_bytes(), usedforsecurity=False).hexdigest() == _md5(held):
        return f"`rm -r {out} && dvc checkout {out}`"
    return f"`rm -rf {held} {out}` and run the night again (or `dvc repro`), which makes it anew"


def place(lock: str, root: Path, out: str, name: str) -> Path | None:
    """The object that holds one file of an out, by a dvc.lock; None where that names no such file."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, SyntaxError, YAMLError):
        stages = YAML(typ="safe").load(lock)["stages"].values()
        md5 = {one["path"]: one["md5"] for stage in stages for one in stage.get("outs", [])}
        cache = _cache(root)
        listed = json.loads(_object(cache, md5[out]).read_text(encoding="utf-8"))
        return next((_object(cache, one["md5"]) for one in listed if one["relpath"] == name), None)
    return None


def _cache(root: Path) -> Path:
    """The folder of a project's objects, as its configuration has it."""
    from configobj import ConfigObj

    files = (root / ".dvc" / "config.local", root / ".dvc" / "config")
    known = [ConfigObj(str(file), encoding="utf-8").get("cache", {}) for file in files]
    return (root / ".dvc" / next((one["dir"] for one in known if "dir" in one), "cache")).resolve() / "files" / "md5"


def _object(cache: Path, md5: str) -> Path:
    return cache / md5[:2] / md5[2:]


def _md5(held: Path) -> str:
    return held.parent.name + held.name
