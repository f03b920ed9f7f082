"""A vocabulary, a token stream and a model come out the same each time, killed or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nightshift import checkpoint, commit, documents
from nightshift.pretrain import pack, pretrain, tokenizer
from nightshift.pretrain.engines import TorchEngine
from nightshift.sections import Compute, Pack, Pretrain, Tokenizer
from nightshift.stage import Work
from tests.data.conftest import section

COMPUTE = Compute(device="cpu", threads=1, workers=1, dtype="float32")
PARAMS = Pretrain(
    engine="torch", zero_stage=0, width=32, layers=1, heads=2, kv_heads=1, feed_forward=64, context=32,
    sequences_per_step=4, tokens=1536, learning_rate=5e-3, warmup=0.1, weight_decay=0.1, clip=1.0, save_every=4,
    max_epochs=8.0, seed=1,
)  # fmt: skip
SENTENCE = "The pump number {} moves water from the well to the tank, and the valve number {} shuts it off."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokenizer and packed tokens of a small corpus."""
    root = tmp_path_factory.mktemp("corpus")
    rows = [section(f"{n}.md", f"Pump {n}", (SENTENCE.format(n, n + 1) + " ") * 3) for n in range(40)]
    table = pl.DataFrame(rows, schema=documents.SECTION).sort("id")
    with commit.folder(root / "balanced") as draft:
        documents.store(draft / "rows.parquet", table)
        documents.store(draft / "weights.parquet", pl.DataFrame({"id": table["id"], "weight": [1.0] * 40}))
    commit.absent(root / "start", "none")
    (root / "verdict").write_text("{}")
    params = Tokenizer(vocabulary=300, min_characters=100)
    tokenizer.run(root / "start", root / "balanced", root / "verdict", root / "tokenizer", params, Work("tokenizer"))
    stream = Pack(tokens=3000, validation_tokens=200, min_tokens=100)
    pack.run(root / "tokenizer", root / "balanced", root / "packed", stream, Work("pack"))
    return root


def train(corpus: Path, out: Path, params: Pretrain = PARAMS, work: Work | None = None) -> dict[str, float]:
    curve = out.with_suffix(".csv")
    parts = (corpus / "packed", corpus / "tokenizer", corpus / "start")
    return dict(pretrain.run(*parts, out, curve, params, COMPUTE, work or Work("pretrain")))


def test_too_little_text_is_absent_all_the_way(corpus: Path, tmp_path: Path) -> None:
    params = Tokenizer(vocabulary=300, min_characters=10**9)
    tokenizer.run(corpus / "start", corpus / "balanced", corpus / "verdict", tmp_path / "t", params, Work("t"))
    pack.run(
        tmp_path / "t",
        corpus / "balanced",
        tmp_path / "p",
        Pack(tokens=9, validation_tokens=9, min_tokens=1),
        Work("p"),
    )
    metrics = pretrain.run(
        tmp_path / "p", tmp_path / "t", corpus / "start", tmp_path / "m", tmp_path / "c.csv", PARAMS, COMPUTE, Work("m")
    )
    assert "too few for a vocabulary" in metrics["absent"]
    assert commit.why_absent(tmp_path / "m") == metrics["absent"]


def test_too_few_tokens_are_absent(corpus: Path, tmp_path: Path) -> None:
    stream = Pack(tokens=3000, validation_tokens=200, min_tokens=100_000)
    pack.run(corpus / "tokenizer", corpus / "balanced", tmp_path / "p", stream, Work("p"))
    assert "too few to train on" in (commit.why_absent(tmp_path / "p") or "")


def test_the_fast_encoder_gives_the_tokenizers_ids(corpus: Path) -> None:
    from tokenizers import Tokenizer as Bpe

    own = Bpe.from_file(str(corpus / "tokenizer" / "tokenizer.json"))
    fast = pack.encoder(json.loads((corpus / "tokenizer" / "tokenizer.json").read_text()))
    for text in ("Pump 7 — naïve café's 12,000 l", "  two  spaces\n\n\tand tabs ", "日本語 emoji 🙂", ""):
        assert fast.encode_ordinary(text) == own.encode(text).ids


def test_streams_hold_what_they_say(corpus: Path) -> None:
    about = json.loads((corpus / "packed" / "packed.json").read_text())
    train, validation = (
        np.fromfile(corpus / "packed" / f"{name}.bin", dtype="<u2") for name in ("train", "validation")
    )
    assert (len(train), len(validation)) == (about["tokens"], 200)
    assert len(train) == 3000
    assert train.max() < about["vocabulary"]
    assert about["documents"] - int((train == 0).sum()) in (0, 1)  # whole, but for the last


def test_training_lowers_the_loss(corpus: Path, tmp_path: Path) -> None:
    metrics = train(corpus, tmp_path / "model")
    assert metrics["last_loss"] < 0.9 * metrics["first_loss"]
    assert 0 < metrics["bits_per_byte"] < 8
    assert (tmp_path / "model.csv").read_text().count("\n") == metrics["steps"] + 1
    commit.check(tmp_path / "model")


class Killed(Exception):
    """Stands for a signal between two steps."""


def test_a_killed_training_goes_on_to_the_same_weights(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(corpus, tmp_path / "whole")
    work = Work("pretrain", tmp_path / "state", key="one")
    step = TorchEngine.train
    done = []

    def dies(self: TorchEngine, ids: object, rate: float) -> float:
        if len(done) == 9:
            raise Killed
        done.append(rate)
        return step(self, ids, rate)

    monkeypatch.setattr(TorchEngine, "train", dies)
    with pytest.raises(Killed):
        train(corpus, tmp_path / "model", work=work)
    monkeypatch.setattr(TorchEngine, "train", step)
    again = Work("pretrain", tmp_path / "state", key="one")
    train(corpus, tmp_path / "model", work=again)
    assert again.resumed_from == 8
    assert commit.digest(tmp_path / "model") == commit.digest(tmp_path / "whole")
    assert not (tmp_path / "state" / "checkpoints" / "one").exists()


def test_a_corrupted_checkpoint_is_passed_over(tmp_path: Path) -> None:
    import torch

    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"w": torch.full((2,), float(step))}, {"losses": [1.0] * step})
    assert len(list(tmp_path.glob("step-*"))) == 2
    (tmp_path / "step-00000003" / "tensors.safetensors").write_bytes(b"torn")
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found.step, found.tensors["w"].tolist()) == (2, [2.0, 2.0])
    assert checkpoint.newest(tmp_path / "nowhere") is None


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
@pytest.mark.long
def test_deepspeed_goes_on_to_the_same_weights(corpus: Path, tmp_path: Path, zero: int) -> None:
    script = (
        "import sys, os, signal\nfrom pathlib import Path\n"
        "sys.path[:0] = sys.argv[5:]\n"
        "from tests.pretrain.test_pretrain import PARAMS, train\nfrom nightshift.stage import Work\n"
        "from nightshift.pretrain.engines import DeepSpeedEngine\n"
        "kill = int(sys.argv[4]); step = DeepSpeedEngine.train; done = []\n"
        "def dies(self, ids, rate):\n"
        "    done.append(1)\n"
        "    if len(done) == kill: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return step(self, ids, rate)\n"
        "DeepSpeedEngine.train = dies\n"
        "out = Path(sys.argv[2]); work = Work('pretrain', out.parent / (out.name + '-state'), key='one')\n"
        f"params = PARAMS.model_copy(update={{'engine': 'deepspeed', 'zero_stage': {zero}}})\n"
        "train(Path(sys.argv[1]), out, params, work)\n"
        "Path(sys.argv[3]).write_text(str(work.resumed_from))\n"
    )
    root = Path(__file__).resolve().parents[2]

    def run(out: str, kill: int) -> int:
        words = [
            str(corpus),
            str(tmp_path / out),
            str(tmp_path / f"{out}.said"),
            str(kill),
            str(root),
            str(root / "include"),
        ]
        return subprocess.run(
            [sys.executable, "-c", script, *words], env=os.environ.copy(), check=False, cwd=root
        ).returncode

    assert run("whole", 0) == 0
    assert run("model", 10) == -9
    assert run("model", 0) == 0
    assert (tmp_path / "model.said").read_text() == "8"
    assert commit.digest(tmp_path / "model") == commit.digest(tmp_path / "whole")
