"""Put a system together: base, adaptation, prompt, index and settings in one folder, complete in itself.

Reads the chosen base, one adaptation, its prompt and the index; writes a folder that can be asked, judged, signed and
served without looking anywhere else. The prompt enters here and not where weights are trained, so that another wording
trains nothing.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from nightshift import commit, stage
from nightshift.answer import Template
from nightshift.errors import DataRefused
from nightshift.sections import Compute, System
from nightshift.stage import Metrics, Work

PARTS = {"adapted.json", "examples.json", "adapter", commit.MANIFEST}  # that an adaptation may hold
CHARACTERS_A_TOKEN = 3  # of an example, at least


def assemble(
    draft: Path, name: str, prompt: Path, base: Path, adapted: Path, index: Path, params: System, dtype: str
) -> None:
    """Copy the parts into `draft` and write system.json. Raises DataRefused for a part that would be left behind."""
    Template.read(prompt)
    if unknown := sorted({one.name for one in adapted.iterdir()} - PARTS):
        raise DataRefused(f"{unknown[0]} is no part of a system", str(adapted), "say in assemble() what becomes of it")
    commit.copy(base, draft / "base")
    commit.copy(index, draft / "index")
    shutil.copyfile(prompt, draft / "prompt.yaml")
    if (adapted / "adapter").is_dir():
        commit.copy(adapted / "adapter", draft / "adapter")
    (draft / "examples.json").write_text(commit.dumps(_examples(adapted)), encoding="utf-8")
    digests = {"base": commit.digest(base), "adapted": commit.digest(adapted), "index": commit.digest(index)}
    settings = params.model_dump() | {"name": name, "dtype": dtype}
    settings["context"] = min(params.context, json.loads((base / "facts.json").read_text(encoding="utf-8"))["context"])
    settings["digests"] = digests | {"prompt": commit.sha256(prompt)}
    (draft / "system.json").write_text(commit.dumps(settings), encoding="utf-8")


def too_short(base: Path, adapted: Path, params: System) -> str:
    """Why this base cannot hold a question with examples, sections and an answer; "" when it can."""
    context = json.loads((base / "facts.json").read_text(encoding="utf-8"))["context"]
    shown = sum(len(text) for one in _examples(adapted) for text in one.values()) // CHARACTERS_A_TOKEN
    short = params.exceeds(context, shown)
    return f"its base {short}" if short else ""


def _examples(adapted: Path) -> list[dict[str, str]]:
    path = adapted / "examples.json"
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else []


def run(
    name: str, prompt: Path, base: Path, adapted: Path, index: Path, out: Path,
    params: System, compute: Compute, work: Work,
) -> Metrics:  # fmt: skip
    """Make one system. Absent where its base or its adaptation is, and where the base reads too little to answer."""
    absent = [reason for part in (base, adapted, index) if (reason := commit.why_absent(commit.check(part)))]
    if reason := absent[0] if absent else too_short(base, adapted, params):
        commit.absent(out, reason)
        return {"absent": reason}
    with commit.folder(out) as draft:
        assemble(draft, name, prompt, base, adapted, index, params, compute.dtype)
        size = sum((draft / one).stat().st_size for one in commit.names(draft))
    return {"bytes": size}


if __name__ == "__main__":
    stage.main(run)
