"""Checkpoints that survive `kill -9`: a folder a step, written whole, the newest sound one wins.

Tensors lie in one safetensors file, the rest in JSON; no pickle. A step's folder is written by commit.py (manifest,
fsync, rename), and a name is never used twice, so that a kill loses at most what came after the last save. One that
does not match its manifest is passed over. The two newest are kept. Where workers share no disk, each save is copied to
an S3 prefix too, its manifest last, and a worker that begins takes the newest from there.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift import commit, storage
from nightshift.errors import CacheCorrupt, SourceError, StorageError

KEPT = 2
log = logging.getLogger("nightshift.checkpoint")


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


@dataclass(frozen=True)
class Shelf:
    """Where the checkpoints of one training are.

    Args:
        folder: on this machine.
        shared: the S3 prefix that other machines find them at; "" where the folder is enough.
    """

    folder: Path
    shared: str = ""

    def bring(self) -> Path:
        """The folder, with the newest whole checkpoint that any machine saved. Raises StorageError."""
        held = [one.name for one in storage.held(self.shared)] if self.shared else []
        whole = sorted(name.partition("/")[0] for name in held if name.endswith(f"/{commit.MANIFEST}"))
        for step in reversed(whole):
            if (self.folder / step).is_dir():
                break
            draft = self.folder / f"draft-{step}"
            shutil.rmtree(draft, ignore_errors=True)
            for name in (one.removeprefix(f"{step}/") for one in held if one.startswith(f"{step}/")):
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                storage.download(f"{self.shared}/{step}/{name}", draft / name)
            with suppress(CacheCorrupt, SourceError):
                commit.check(draft)
                draft.rename(self.folder / step)
                break
            shutil.rmtree(draft)
        return self.folder

    def share(self) -> None:
        """Let other machines find the newest checkpoint. What fails of that costs them time, and no training."""
        if not self.shared:
            return
        newest = _steps(self.folder)[-1]
        files = [one.relative_to(newest).as_posix() for one in newest.rglob("*") if one.is_file()]
        try:
            for name in sorted(files, key=lambda one: one == commit.MANIFEST):
                storage.upload(newest / name, f"{self.shared}/{newest.name}/{name}")
            self._forget(keep=KEPT)
        except (StorageError, SourceError) as error:
            log.warning("this checkpoint stays on this machine: %s", error)

    def clear(self) -> None:
        """Forget all: the work that they were for is done."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.shared:
            try:
                self._forget(keep=0)
            except (StorageError, SourceError) as error:
                log.warning("what was saved for other machines stays there: %s", error)

    def _forget(self, keep: int) -> None:
        """Remove all but the newest there; a manifest first, so that none looks whole that is not."""
        held = [one.name for one in storage.held(self.shared)]
        old = sorted({name.partition("/")[0] for name in held})[: -keep or None]
        for name in sorted(held, key=lambda one: not one.endswith(f"/{commit.MANIFEST}")):
            if name.partition("/")[0] in old:
                storage.remove(f"{self.shared}/{name}")


def _steps(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []
