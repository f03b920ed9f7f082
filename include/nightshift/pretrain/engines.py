"""Who holds weights and optimizer while the loop runs: DeepSpeed, or plain torch. The loop is the same.

Both save all that a resume needs. Plain torch saves safetensors. DeepSpeed saves in its own format, which holds
pickles: those files lie in the state folder alone, are read only after every sha256 of their manifest was checked, and
never become an out.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Protocol

from nightshift import checkpoint, commit
from nightshift.errors import CacheCorrupt, SourceError
from nightshift.sections import Compute, Pretrain

KEPT = 2
BETAS, EPSILON = (0.9, 0.95), 1e-8  # of AdamW, as in GPT-3's recipe


class Engine(Protocol):
    """What the loop needs."""

    def train(self, ids: Any, rate: float) -> float:
        """One step on (sequences, context) ids; returns the loss in nats a token."""

    def loss(self, ids: Any) -> float:
        """Summed nats of (sequences, context) ids, from the second token of each on."""

    def save(self, folder: Path, step: int, losses: list[float]) -> None:
        """Save everything after a step."""

    def resume(self, folder: Path) -> tuple[int, list[float]]:
        """Go on from the newest sound checkpoint; returns (step, losses), or (0, []) where there is none."""

    def weights(self) -> dict[str, Any]:
        """The weights by name."""


def groups(model: Any, decay: float) -> list[dict[str, Any]]:
    """Matrices with weight decay, everything else without."""
    named = [one for one in model.parameters() if one.requires_grad]
    return [
        {"params": [one for one in named if one.dim() >= 2], "weight_decay": decay},
        {"params": [one for one in named if one.dim() < 2], "weight_decay": 0.0},
    ]


class TorchEngine:
    """Plain torch: float32 weights, autocast to the dtype of params."""

    def __init__(self, model: Any, params: Pretrain, compute: Compute) -> None:
        import torch

        self.model, self.params, self.compute = model.to(compute.device).train(), params, compute
        self.dtype = getattr(torch, compute.dtype)
        self.optimizer = torch.optim.AdamW(groups(model, params.weight_decay), lr=0.0, betas=BETAS, eps=EPSILON)

    def train(self, ids: Any, rate: float) -> float:
        """One step."""
        import torch

        for group in self.optimizer.param_groups:
            group["lr"] = rate
        ids = ids.to(self.compute.device)
        with torch.autocast(self.compute.device, dtype=self.dtype, enabled=self.compute.dtype == "bfloat16"):
            loss = self.model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.params.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    def loss(self, ids: Any) -> float:
        """Summed nats."""
        import torch

        ids = ids.to(self.compute.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.compute.device, dtype=self.dtype, enabled=self.compute.dtype == "bfloat16"),
        ):
            mean = self.model(input_ids=ids, labels=ids).loss
        return float(mean) * ids.shape[0] * (ids.shape[1] - 1)

    def save(self, folder: Path, step: int, losses: list[float]) -> None:
        """Weights and AdamW's moments as safetensors."""
        tensors = {f"weight/{name}": one for name, one in self._named().items()}
        for name, one in self._named().items():
            tensors |= {f"{kind}/{name}": value for kind, value in self.optimizer.state[one].items()}
        checkpoint.save(folder, step, tensors, {"losses": losses})

    def resume(self, folder: Path) -> tuple[int, list[float]]:
        """Go on."""
        import torch

        saved = checkpoint.newest(folder)
        if saved is None:
            return 0, []
        with torch.no_grad():
            for name, one in self._named().items():
                one.copy_(saved.tensors[f"weight/{name}"])
                self.optimizer.state[one] = saved.adamw(name, one.device)
        return saved.step, list(saved.state["losses"])

    def weights(self) -> dict[str, Any]:
        """By name."""
        return dict(self.model.state_dict())

    def _named(self) -> dict[str, Any]:
        return dict(self.model.named_parameters())


class DeepSpeedEngine:
    """DeepSpeed in one process: bit for bit the same on a resume, ZeRO 0 to 3 (measured on the CPU)."""

    def __init__(self, model: Any, params: Pretrain, compute: Compute) -> None:
        import torch

        os.environ |= {"DS_ACCELERATOR": "cpu" if compute.device == "cpu" else "cuda", "LOCAL_RANK": "0"}
        import deepspeed

        # one process has nobody to share memory with; building that operator takes a compiler and a minute
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        if not torch.distributed.is_initialized():
            backend = "gloo" if compute.device == "cpu" else "nccl"
            meeting = torch.distributed.HashStore()  # in this process: no port is taken, and NCCL comes back to it
            torch.distributed.init_process_group(backend, store=meeting, rank=0, world_size=1)
        config = {
            "train_micro_batch_size_per_gpu": params.sequences_per_step,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": params.clip,
            "bf16": {"enabled": compute.dtype == "bfloat16"},
            "zero_optimization": {"stage": params.zero_stage},
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 1 << 30,
        }
        optimizer = torch.optim.AdamW(groups(model, params.weight_decay), lr=0.0, betas=BETAS, eps=EPSILON)
        self.compute = compute
        self.engine, self.optimizer, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self.engine.train()

    def train(self, ids: Any, rate: float) -> float:
        """One step."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        ids = ids.to(self.compute.device)
        loss = self.engine(input_ids=ids, labels=ids).loss
        self.engine.backward(loss)
        self.engine.step()
        return float(loss.detach())

    def loss(self, ids: Any) -> float:
        """Summed nats."""
        import torch

        ids = ids.to(self.compute.device)
        with torch.no_grad():
            mean = self.engine(input_ids=ids, labels=ids).loss
        return float(mean) * ids.shape[0] * (ids.shape[1] - 1)

    def save(self, folder: Path, step: int, losses: list[float]) -> None:
        """DeepSpeed's own files, in a folder that is there whole or not at all."""
        with commit.folder(folder / f"step-{step:08d}") as draft:
            self.engine.save_checkpoint(str(draft), tag="all", client_state={"step": step, "losses": losses})
        for old in sorted(folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old)

    def resume(self, folder: Path) -> tuple[int, list[float]]:
        """Go on from the newest checkpoint that its manifest vouches for."""
        for path in sorted(folder.glob("step-*"), reverse=True):
            try:
                commit.check(path)
            except (CacheCorrupt, SourceError):
                continue
            _, state = self.engine.load_checkpoint(str(path), tag="all")
            return int(state["step"]), list(state["losses"])
        return 0, []

    def weights(self) -> dict[str, Any]:
        """By name; gathered, where ZeRO 3 holds them in parts."""
        import deepspeed

        module = self.engine.module
        with deepspeed.zero.GatheredParameters(
            list(module.parameters()), enabled=self.engine.zero_optimization_stage() == 3
        ):
            return {name: one.detach().clone() for name, one in module.state_dict().items()}
