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
from nightshift.sections import Compute, System
from nightshift.stage import Metrics, Work


def assemble(
    draft: Path, name: str, prompt: Path, base: Path, adapted: Path, index: Path, params: System, dtype: str
) -> None:
    """Copy the parts into `draft` and write system.json."""
    Template.read(prompt)
    _copy(base, draft / "base")
    _copy(index, draft / "index")
    shutil.copyfile(prompt, draft / "prompt.yaml")
    if (adapted / "adapter").is_dir():
        _copy(adapted / "adapter", draft / "adapter")
    examples = adapted / "examples.json"
    kept = json.loads(examples.read_text(encoding="utf-8")) if examples.is_file() else []
    (draft / "examples.json").write_text(commit.dumps(kept), encoding="utf-8")
    digests = {"base": commit.digest(base), "adapted": commit.digest(adapted), "index": commit.digest(index)}
    settings = params.model_dump() | {"name": name, "dtype": dtype, "quantisation": "none"}
    settings["digests"] = digests | {"prompt": commit.sha256(prompt)}
    (draft / "system.json").write_text(commit.dumps(settings), encoding="utf-8")


def run(
    name: str, prompt: Path, base: Path, adapted: Path, index: Path, out: Path,
    params: System, compute: Compute, work: Work,
) -> Metrics:  # fmt: skip
    """Make one system. Absent where its base or its adaptation is."""
    for part in (base, adapted, index):
        if reason := commit.why_absent(commit.check(part)):
            commit.absent(out, reason)
            return {"absent": reason}
    with commit.folder(out) as draft:
        assemble(draft, name, prompt, base, adapted, index, params, compute.dtype)
        size = sum((draft / one).stat().st_size for one in commit.names(draft))
    return {"bytes": size}


def _copy(source: Path, target: Path) -> None:
    """Copy a folder's files; its manifest stays behind, since the system has one of its own."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(commit.MANIFEST), copy_function=shutil.copyfile)


if __name__ == "__main__":
    stage.main(run)
