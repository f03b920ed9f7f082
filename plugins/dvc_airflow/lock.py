"""Lock entries as data: what dvc.lock says of one stage, outside any file.

An entry travels from task to task with the metrics files that belong to it; the file is written once, in DVC's own
order, by whoever needs one. No two tasks share a dvc.lock, and nothing is merged by Git.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

from ruamel.yaml import YAML

Entry = Mapping[str, Any]


def parse(text: str) -> dict[str, Entry]:
    """Stage → entry of a dvc.lock; empty for an empty file."""
    document = YAML(typ="safe").load(text) or {}
    stages: dict[str, Entry] = document.get("stages") or {}
    return stages


def dump(entries: Mapping[str, Entry], order: Iterable[str]) -> str:
    """The dvc.lock that DVC would write had it run these stages in this order."""
    stages = {name: entries[name] for name in order if name in entries}
    out = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump({"schema": "2.0", "stages": stages}, out)
    return out.getvalue()


def objects(entry: Entry) -> dict[str, str]:
    """Path → md5 of the outs whose objects lie where DVC 3 keeps them."""
    return {one["path"]: one["md5"] for one in entry.get("outs") or [] if one.get("hash") == "md5" and "md5" in one}


def hashes(entry: Entry, part: str) -> dict[str, str]:
    """Path → md5 of an entry's 'deps' or 'outs'."""
    return {one["path"]: one.get("md5", "") for one in entry.get(part) or []}
