"""What the profile `gpu` trains on a GPU: plain torch and DeepSpeed beside each other.

    python bench/gpu.py [--out bench/gpu.json] [--steps 60] [--device cuda]

The profile's model over the standard library's docstrings, by plain torch and by DeepSpeed at each ZeRO stage: tokens a
second, the share of the card's peak, its memory, and bits per byte, which should differ by no more than two runs of the
same do: a GPU adds in no fixed order. One run is killed by SIGKILL after a checkpoint and goes on: how far its weights
are from those of a run that was not killed, beside how far those of two such runs are from each other. Each training is
a process of its own. Four minutes on an H200.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "include")]

import polars as pl  # noqa: E402
from bench.night import machine  # noqa: E402
from bench.released import sections  # noqa: E402

from nightshift import commit, documents, params  # noqa: E402
from nightshift.pretrain import pack, pretrain, tokenizer  # noqa: E402
from nightshift.sections import Compute, Pack, Pretrain, Tokenizer  # noqa: E402
from nightshift.stage import Work  # noqa: E402

T = TypeVar("T")
PEAK = {"H100": 989e12, "H200": 989e12}  # bfloat16 operations a second, dense: NVIDIA's data sheets of the SXM modules
WARM = 10  # steps before the time is taken
KILLED = ("deepspeed", 1)  # engine and ZeRO stage, those of the profile, of the run that is killed
STAGES = [("torch", 0), *(("deepspeed", zero) for zero in range(4))]


@dataclass
class Timed(Work):
    """Work that notes when each step begins, and dies at one as a machine does: at once."""

    dies: int | None = None
    times: list[float] = field(default_factory=list)

    def progress(self, items: Iterable[T], unit: str = "", total: int | None = None) -> Iterator[T]:
        """Pass the steps on."""
        for number, item in enumerate(items):
            if number == self.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            self.times.append(time.perf_counter())
            yield item
        self.times.append(time.perf_counter())

    @property
    def step_s(self) -> float:
        """Seconds of a step, the median of those after the warm ones."""
        each = [after - before for before, after in zip(self.times, self.times[1:], strict=False)]
        return statistics.median(each[WARM:] or each)


def peak_gib(device: str) -> float:
    """What the process has held of the card's memory, at most."""
    import torch

    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if device == "cuda" else 0.0


def pretrained(folder: Path, name: str, settings: Pretrain, compute: Compute, dies: int | None) -> None:
    """Train once and write what it took; a process of its own."""
    work = Timed("pretrain", folder / "state", key=name, dies=dies)
    packed, learned = folder / "packed", folder / "tokenizer"
    said = pretrain.run(packed, learned, packed, folder / name, folder / f"{name}.csv", settings, compute, work)
    found = {"step_s": work.step_s, "peak_gib": peak_gib(compute.device), "resumed_from": work.resumed_from}
    (folder / f"{name}.json").write_text(json.dumps(found | dict(said)))


def trained(folder: Path, name: str, *given: Any, dies: int | None = None) -> dict[str, Any]:
    """Run a training in a process of its own; what it wrote, and nothing where it was to die."""
    child = multiprocessing.get_context("spawn").Process(target=pretrained, args=(folder, name, *given, dies))
    child.start()
    child.join()
    if child.exitcode != (0 if dies is None else -signal.SIGKILL):
        raise SystemExit(f"{name} ended with {child.exitcode}")
    return json.loads((folder / f"{name}.json").read_text()) if dies is None else {}


def apart(one: Path, other: Path) -> float:
    """The largest difference of two models' weights, as a share of the largest weight; 0 is the same."""
    from safetensors.torch import load_file

    some, others = load_file(one), load_file(other)
    largest = max(float(tensor.float().abs().max()) for tensor in some.values())
    return max(float((some[name].float() - others[name].float()).abs().max()) for name in some) / largest


def corpus(folder: Path, settings: Pretrain) -> None:
    """Docstrings of the standard library as a vocabulary and a stream of tokens, by the night's own stages."""
    rows = sections(None)
    with commit.folder(folder / "balanced") as draft:
        documents.store(draft / "rows.parquet", rows.sort("id"))
        documents.store(draft / "ledger.parquet", pl.DataFrame(schema=documents.LEDGER))
        weights = pl.DataFrame({"id": rows["id"], "weight": [1.0] * len(rows)})
        weights.write_parquet(draft / "weights.parquet")
    commit.absent(folder / "start", "nothing to begin from")
    commit.file(folder / "verdict.json", "{}")
    learned = Tokenizer(vocabulary=16384, min_characters=1000)
    begin, balanced, learnt = folder / "start", folder / "balanced", folder / "tokenizer"
    tokenizer.run(begin, balanced, folder / "verdict.json", learnt, learned, Work("tokenizer"))
    budget = Pack(tokens=20_000_000, validation_tokens=30_000, min_tokens=settings.context)
    pack.run(learnt, balanced, folder / "packed", budget, Work("pack"))


def pretraining(folder: Path, settings: Pretrain, compute: Compute, peak: float) -> dict[str, Any]:
    """Each engine, and those that are killed."""
    corpus(folder, settings)
    found: dict[str, Any] = {}
    a_step = settings.context * settings.sequences_per_step
    for kind, zero in STAGES:
        name = kind if kind == "torch" else f"{kind}-zero{zero}"
        chosen = settings.model_copy(update={"engine": kind, "zero_stage": zero})
        said = trained(folder, name, chosen, compute)
        rate = a_step / said["step_s"]
        found[name] = {
            "tokens_per_second": round(rate),
            # six operations a parameter and token (Kaplan et al. 2020), attention's own not counted
            "share_of_peak": round(6 * said["parameters"] * rate / peak, 3) if peak else None,
            "peak_gib": said["peak_gib"],
            "bits_per_byte": round(said["bits_per_byte"], 4),
            "last_loss": round(said["last_loss"], 4),
        }
        if (kind, zero) == KILLED:
            trained(folder, f"{name}-again", chosen, compute)
            trained(folder, f"{name}-killed", chosen, compute, dies=settings.save_every + WARM)
            again = trained(folder, f"{name}-killed", chosen, compute)
            weights = {one: folder / f"{name}{one}" / "model.safetensors" for one in ("", "-again", "-killed")}
            found[name]["weights_apart_of_two_runs"] = apart(weights[""], weights["-again"])
            found[name]["killed"] = {
                "went_on_from_step": again["resumed_from"],
                "bits_per_byte": round(again["bits_per_byte"], 4),
                "weights_apart": apart(weights[""], weights["-killed"]),
            }
        print(json.dumps({name: found[name]}), flush=True)
    return {"parameters": said["parameters"], "steps": said["steps"], "tokens_a_step": a_step, "engines": found}


def card(device: str) -> dict[str, Any]:
    """The GPU and what drives it."""
    import torch

    versions = {name: metadata.version(name) for name in ("torch", "deepspeed", "transformers")}
    if device != "cuda":
        return {"gpu": None, **versions}
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return {"gpu": said, "cuda": torch.version.cuda, **versions}


def main() -> None:
    """Measure, and write the file."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--out", type=Path, default=ROOT / "bench" / "gpu.json")
    asked.add_argument("--steps", type=int, default=60)
    asked.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: to see that it runs")
    asked.add_argument("--profile", default="gpu")
    said = asked.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        chosen = folder / params.FILE
        chosen.write_text((ROOT / params.FILE).read_text(encoding="utf-8"), encoding="utf-8")
        params.apply(chosen, said.profile)
        settings, compute = params.load(chosen, Pretrain), params.load(chosen, Compute)
        compute = compute.model_copy(update={"device": said.device})
        tokens = said.steps * settings.context * settings.sequences_per_step
        settings = settings.model_copy(
            update={"tokens": tokens, "max_epochs": float(said.steps), "save_every": said.steps // 3}
        )
        about = machine() | card(said.device)
        peak = next((rate for name, rate in PEAK.items() if name in (about["gpu"] or "")), 0.0)
        found = {"machine": about, "pretraining": pretraining(folder, settings, compute, peak)}
    said.out.write_text(json.dumps(found | {"seconds": round(time.monotonic() - begun)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
