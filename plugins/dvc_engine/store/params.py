"""What a run has instead of values in params.yaml: by dotted keys, and by the name of a profile.

The overridden values become a commit like the other, so that the commit that a night names holds what it ran with.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc_engine.pipeline import reading
from dvc_engine.store import snapshot
from dvc_engine.store.commit import Commit
from dvc_engine.store.snapshot import Refused

FILE = reading.PARAMS


def override(repository: Path, commit: str, values: Mapping[str, Any], file: str = FILE) -> str:
    """A commit like `commit` with these values at dotted keys of a params file; comments stay. Raises Refused."""
    if not values:
        return commit
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = sys.maxsize  # to fold what is folded already may change its value
    document = yaml.load(Commit(repository, commit).content(file) or b"")
    changed = False
    for key, value in values.items():
        last = key.rpartition(".")[2]
        if (place := holding(document, key)) is None:
            raise Refused(f"{file} has no key {key}; name one that it has")
        changed = changed or place[last] != value
        place[last] = value
    if not changed:
        return commit
    out = io.StringIO()
    yaml.dump(document, out)
    content = out.getvalue().encode()
    written = leaves(_read(content, file))
    if other := next((key for key, value in values.items() if repr(written.get(key, value)) != repr(value)), None):
        what = f"{other} is what its alias is, or its anchor, which has another value tonight"
        raise Refused(f"{what}; write it out in {file}, and commit that")
    tree = snapshot.with_files(repository, commit, {file: content})
    return snapshot.commit_tree(repository, tree, [commit], "Overridden params", like=commit)


def holding(document: Any, key: str) -> dict[str, Any] | None:
    """The mapping of a document in which a dotted key's last part is; None where none has it, or its own has dots."""
    *spine, last = key.split(".")
    place = document
    for step in spine:
        place = place.get(step) if isinstance(place, dict) else None
    return place if isinstance(place, dict) and last in place else None


def overlay(repository: Path, commit: str, name: str, file: str = FILE) -> dict[str, Any]:
    """`profile` itself, and the values of `profiles.<name>` at dotted keys. Raises Refused for an unknown name."""
    known = profiles(_read(Commit(repository, commit).content(file) or b"", file))
    if known and name not in known:
        raise Refused(f"{file} has no profile {name}; it has {', '.join(known)}")
    return {"profile": name, **leaves(known.get(name) or {})}


def profiles(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Name → values that it stands for, where `profile` names one of the file's `profiles`; else nothing is meant."""
    said, name = document.get("profiles"), document.get("profile")
    if not isinstance(said, dict) or name not in said:
        return {}
    return said if all(value is None or isinstance(value, dict) for value in said.values()) else {}


def chosen(conf: Mapping[str, Any], form: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's conf overrides. Raises Refused for a key that the form does not have.

    The web UI sends the whole form: what then equals its default was not chosen, and must not undo a profile.

    Args:
        conf: key → value that the run was triggered with.
        form: key → default of every field.
    """
    unknown = sorted(set(conf) - set(form))
    if unknown:
        raise Refused(f"the run's conf has {unknown[0]}, and the DAG's params have no such key; its form shows all")
    if set(conf) == set(form):
        return {key: value for key, value in conf.items() if value != form[key]}
    return dict(conf)


def values(repository: Path, commit: str, file: str = FILE) -> dict[str, Any]:
    """Dotted key → value of what a run may override: of a params file, and `profile` where it has some."""
    return leaves(_read(Commit(repository, commit).content(file) or b"", file))


def _read(content: bytes, file: str) -> dict[str, Any]:
    """A params file as data; each task imports this module, and few of them a YAML reader. Raises Refused."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        said = YAML(typ="safe").load(content.decode())
    except (YAMLError, ValueError) as error:
        raise Refused(f"{file} is no YAML ({' '.join(str(error).split())}); mend it, and commit it") from None
    return said if isinstance(said, dict) else {}


def leaves(document: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Dotted key → value of everything in a document; a mapping with a `kind` is one value, replaced as a whole."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        deeper = isinstance(value, dict) and "kind" not in value
        found |= leaves(value, f"{above}{key}.") if deeper else {f"{above}{key}": value}
    return found
