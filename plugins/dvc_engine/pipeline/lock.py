"""Lock entries as data: what dvc.lock says of one stage, outside any file.

An entry travels from task to task with the metrics files that belong to it; the file is written once, in DVC's own
order, by whoever needs one. No two tasks share a dvc.lock, and nothing is merged by Git.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ruamel.yaml import YAML

    from dvc_engine.pipeline.project import Project, Stage

Entry = Mapping[str, Any]
UNLIKE = re.compile(r"""['\\]|\bnull\b|NaN|Infinity|[^"]{61}""")


def parse(text: str) -> dict[str, Entry]:
    """Stage → entry of a dvc.lock; empty for an empty file."""
    document = _yaml("safe").load(text) or {}
    stages: dict[str, Entry] = document.get("stages") or {}
    return stages


def alone(text: str, key: str) -> str:
    """Of a dvc.lock the lines of one stage, as another of that stage alone; "" where it has none.

    To read all of 2,000 stages takes half a second. A key of over 120 letters, which YAML writes otherwise, is not
    found.
    """
    doubled = key.replace("'", "''")
    written = "|".join(map(re.escape, (key, f"'{doubled}'", json.dumps(key, ensure_ascii=False))))
    found = re.search(rf"^  (?:{written}):\n(?:(?:   .*)?\n)*", text, re.MULTILINE)
    return f"stages:\n{found[0]}" if found else ""


def read(stage: Stage, text: str) -> Entry | None:
    """The entry of a stage in its dvc.lock, or what its `.dvc` file says."""
    return imported(text) if stage.imported else parse(text).get(stage.key)


def imported(text: str) -> Entry:
    """What a `.dvc` file says, as an entry."""
    return {"outs": _yaml("safe").load(text)["outs"], "text": text}


def files(
    project: Project, entries: Mapping[str, Entry], pinned: Callable[[str], bytes | None] = lambda _: None
) -> dict[str, str]:
    """Path → text of every dvc.lock, and `.dvc` file, that DVC would write had it run these stages.

    Args:
        pinned: of a dvc.lock as it was before; its `datasets` stay.
    """
    held: dict[str, dict[str, Entry]] = {one.lock: {} for one in project.stages.values() if not one.imported}
    texts: dict[str, str] = {}
    for stage in (project.stages[name] for name in project.order if name in entries):
        if stage.imported:
            texts[stage.file] = str(entries[stage.name]["text"])
        else:
            held[stage.lock][stage.key] = entries[stage.name]
    for path, stages in held.items():
        before = _kept(pinned(path) or b"")
        if stages or before:
            texts[path] = _dump({"schema": "2.0"} | before | {"stages": stages})
    return texts


def _kept(pinned: bytes) -> dict[str, Any]:
    """What a dvc.lock holds, where it names data sets; they stand before the stages, or behind them."""
    return dict(_yaml().load(pinned)) if b"datasets:" in pinned else {}


def _dump(document: Mapping[str, Any]) -> str:
    """A dvc.lock as DVC writes it, by ruamel's emitter, and by libyaml's, three times as fast, where both agree."""
    if len(document) > 2 or not document["stages"]:
        return _text(_yaml(), document)
    texts = [_text(_yaml(), {"schema": document["schema"]}), "stages:\n"]
    for alike, some in groupby(document["stages"].items(), lambda one: _alike(*one)):
        text = _text(_yaml("safe" if alike else "rt"), {"stages": dict(some)})
        texts.append(text.removeprefix("stages:\n"))
    return "".join(texts)


def _alike(name: str, entry: Entry) -> bool:
    """Whether both write an entry alike: not with apostrophes, nulls, long words, or what JSON escapes but quotes."""
    return not UNLIKE.search(json.dumps([name, entry], default=str).replace('\\"', ""))


def _yaml(kind: str = "rt") -> YAML:
    """A reader and writer; not imported before, since each task reads this module."""
    from ruamel.yaml import YAML

    return YAML(typ=kind)


def _text(yaml: YAML, document: Mapping[str, Any]) -> str:
    out = io.StringIO()
    yaml.default_flow_style = False
    yaml.representer.sort_base_mapping_type_on_output = False
    yaml.dump(document, out)
    return out.getvalue()


def objects(stage: Stage, entry: Entry) -> dict[str, str]:
    """Path → md5 of the outs whose objects lie where DVC 3 keeps them; the files of a folder that a remote versions."""
    found = dict[str, str]()
    for out in (one for one in entry.get("outs") or [] if one.get("hash") == "md5"):
        path = stage.at(out["path"])
        found |= {path: out["md5"]} if "md5" in out else {}
        found |= {f"{path}/{one['relpath']}": one["md5"] for one in out.get("files") or []}
    return found


def executable(stage: Stage, entry: Entry) -> list[str]:
    """The outs of an entry that may be run."""
    return [stage.at(one["path"]) for one in entry.get("outs") or [] if one.get("isexec")]


def hashes(stage: Stage, entry: Entry, part: str) -> dict[str, str]:
    """Path → md5 of an entry's 'deps' or 'outs'."""
    return {stage.at(one["path"]): one.get("md5", "") for one in entry.get(part) or []}
