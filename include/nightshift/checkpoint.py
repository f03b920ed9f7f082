"""Checkpoints that survive `kill -9`: a folder a step, written whole, the newest sound one wins.

Tensors lie in one safetensors file, the rest in JSON; no pickle. A step's folder is written by commit.py (manifest,
fsync, rename), and a name is never used twice, so that a kill loses at most what came after the last save. One that
does not match its manifest is passed over. The two newest are kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift import commit
from nightshift.errors import CacheCorrupt, SourceError

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after `step` steps."""

    step: int
    tensors: dict[str, Any]
    state: dict[str, Any]

    def adamw(self, name: str, device: Any) -> dict[str, Any]:
        """What torch's AdamW keeps of a parameter: its moments where its weights are, its step on the CPU."""
        moments = {kind: self.tensors[f"{kind}/{name}"].to(device) for kind in ("exp_avg", "exp_avg_sq")}
        return {"step": self.tensors[f"step/{name}"], **moments}


def save(folder: Path, step: int, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Save the tensors and the JSON-able state of a step, and forget all but the two newest."""
    from safetensors.torch import save_file

    with commit.folder(folder / f"step-{step:08d}") as draft:
        save_file(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()}, draft / "tensors.safetensors"
        )
        (draft / "state.json").write_text(commit.dumps({"step": step, **state}), encoding="utf-8")
    for old in _steps(folder)[:-KEPT]:
        shutil.rmtree(old)


def newest(folder: Path | None) -> Checkpoint | None:
    """The newest checkpoint that is what its manifest says; None where there is none."""
    from safetensors.torch import load_file

    for path in reversed(_steps(folder) if folder else []):
        try:
            commit.check(path)
        except (CacheCorrupt, SourceError):
            continue
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return Checkpoint(state["step"], load_file(path / "tensors.safetensors"), state)
    return None


def clear(folder: Path | None) -> None:
    """Forget all: the work that they were for is done."""
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []
