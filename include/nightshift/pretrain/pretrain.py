"""Train a Llama-shaped model of our own on the packed tokens.

Reads the packed tokens and the tokenizer; writes a Hugging Face folder (safetensors, tokenizer, facts, a card as
evidence) and the curve of the loss. AdamW, linear warm-up, then a cosine down to a tenth of the peak (Brown et al.
2020), sequences in an order that the seed alone decides. Quality is bits per byte of text that was not trained on,
which does not depend on the tokenizer. A killed training goes on from its last checkpoint to the same weights.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightshift import commit, stage
from nightshift.pretrain.engines import DeepSpeedEngine, Engine, TorchEngine
from nightshift.sections import Compute, Pretrain
from nightshift.stage import Metrics, Work

FLOOR = 0.1  # of the peak learning rate, where the cosine ends
Tokens = npt.NDArray[np.uint16]


def model(params: Pretrain, vocabulary: int, end: int) -> Any:
    """A Llama with random weights; embeddings are shared with the output."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=params.width,
        intermediate_size=params.feed_forward,
        num_hidden_layers=params.layers,
        num_attention_heads=params.heads,
        num_key_value_heads=params.kv_heads,
        max_position_embeddings=params.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end,
    )
    return LlamaForCausalLM(config)


def steps(size: int, params: Pretrain) -> int:
    """Steps that tokens, passes and data allow; at least one."""
    a_step = params.context * params.sequences_per_step
    return max(1, int(min(params.tokens, params.max_epochs * size)) // a_step)


def rate(step: int, total: int, params: Pretrain) -> float:
    """Learning rate of step `step` of `total`, both counted from 0."""
    warm = max(1, round(params.warmup * total))
    if step < warm:
        return params.learning_rate * (step + 1) / warm
    done = (step - warm) / max(1, total - warm)
    return params.learning_rate * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done)))


def sequences(tokens: Tokens, params: Pretrain) -> Iterator[npt.NDArray[np.int64]]:
    """(sequences_per_step, context) ids for ever; each epoch in a new order of its own."""
    rows = len(tokens) // params.context
    epoch = 0
    order: list[int] = []
    while True:
        while len(order) < params.sequences_per_step:
            order += np.random.default_rng([params.seed, epoch]).permutation(rows).tolist()
            epoch += 1
        taken, order = order[: params.sequences_per_step], order[params.sequences_per_step :]
        yield np.stack([tokens[row * params.context : (row + 1) * params.context] for row in taken]).astype(np.int64)


def bits_per_byte(engine: Engine, tokens: Tokens, size: int, context: int) -> float:
    """Bits that a byte of the validation text costs: each token but the first is predicted once."""
    import torch

    nats = 0.0
    for start in range(0, len(tokens) - 1, context - 1):
        part = tokens[start : start + context]
        if len(part) > 1:
            nats += engine.loss(torch.from_numpy(part.astype(np.int64)).unsqueeze(0))
    return nats / math.log(2) / size


def run(
    packed: Path, tokenizer: Path, start: Path, out: Path, curve: Path, params: Pretrain, compute: Compute, work: Work
) -> Metrics:
    """Train. Absent where there are no tokens, or fewer than one sequence holds."""
    import torch

    reason = commit.why_absent(commit.check(packed)) or commit.why_absent(commit.check(tokenizer))
    if not reason and (size := (packed / "train.bin").stat().st_size // 2) < params.context:
        reason = f"{size} tokens are fewer than one sequence of {params.context} holds"
    if reason:
        commit.absent(out, reason)
        commit.file(curve, "step,loss\n")
        return {"absent": reason}
    torch.set_num_threads(compute.threads)
    about = json.loads((packed / "packed.json").read_text(encoding="utf-8"))
    train, validation = (np.fromfile(packed / f"{name}.bin", dtype="<u2") for name in ("train", "validation"))
    total = steps(len(train), params)
    stage.seed(params.seed)
    engine = _engine(about["vocabulary"], params, compute, work)
    losses = _train(engine, train, total, params, work)
    quality = bits_per_byte(engine, validation, about["validation_bytes"], params.context)
    with commit.folder(out) as draft:
        facts = {
            "name": "ours",
            "kind": "pretrained",
            "origin": "pretrained",
            "licence": "that of its documents, see the data card",
            "training_data": "documents of this project",
            "context": params.context,
            "parameters": _save(engine, params, about["vocabulary"], draft),
            "tokens": total * params.context * params.sequences_per_step,
            "packed": commit.digest(packed),
            "bits_per_byte": round(quality, 4),
            "seed": params.seed,
        }
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copyfile(tokenizer / name, draft / name)
        (draft / "facts.json").write_text(commit.dumps(facts), encoding="utf-8")
        (draft / "evidence").mkdir()
        (draft / "evidence" / "card.md").write_text(card(facts, params), encoding="utf-8")
    commit.file(curve, "step,loss\n" + "".join(f"{step},{loss:.4f}\n" for step, loss in enumerate(losses, 1)))
    if shelf := work.checkpoints():
        shelf.clear()
    return {
        "steps": total,
        "tokens": facts["tokens"],
        "tokens_available": len(train),
        "parameters": facts["parameters"],
        "first_loss": losses[0],
        "last_loss": sum(losses[-10:]) / len(losses[-10:]),
        "bits_per_byte": quality,
    }


def card(facts: dict[str, Any], params: Pretrain) -> str:
    """The maker's own card: what an assessment may rely on."""
    return (
        "# ours\n\n"
        f"A Llama-shaped model of {facts['parameters']} parameters ({params.layers} layers, width {params.width}), "
        f"pretrained on {facts['tokens']} tokens. Open weights. Its training data are available: the documents of "
        f"this project, as the catalogue lists them. Validation: {facts['bits_per_byte']} bits per byte. It was not "
        "tested for robustness. The data may contain bias of its documents; rows were reweighed where it could be "
        "measured.\n"
    )


def _engine(vocabulary: int, params: Pretrain, compute: Compute, work: Work) -> Engine:
    fresh = model(params, vocabulary, 0)
    return (TorchEngine if params.engine == "torch" else DeepSpeedEngine)(fresh, params, compute)


def _train(engine: Engine, tokens: Tokens, total: int, params: Pretrain, work: Work) -> list[float]:
    """All steps, from the newest checkpoint on; returns the loss of each."""
    import torch

    shelf = work.checkpoints()
    done, losses = engine.resume(shelf.bring()) if shelf else (0, [])
    work.resumed_from = done or None
    batches = sequences(tokens, params)
    for _ in range(done):
        next(batches)
    for step in work.progress(range(done, total), "steps"):
        losses.append(engine.train(torch.from_numpy(next(batches)), rate(step, total, params)))
        if shelf and (step + 1) % params.save_every == 0 and step + 1 < total:
            engine.save(shelf.folder, step + 1, losses)
            shelf.share()
    return losses


def _save(engine: Engine, params: Pretrain, vocabulary: int, draft: Path) -> int:
    """Write config and weights (bfloat16 safetensors); returns the number of parameters."""
    import torch

    fresh = model(params, vocabulary, 0)
    fresh.load_state_dict(engine.weights())
    fresh.to(torch.bfloat16).save_pretrained(draft)
    return int(fresh.num_parameters())


if __name__ == "__main__":
    stage.main(run)
