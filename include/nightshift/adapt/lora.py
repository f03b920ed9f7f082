"""Train a low-rank adapter on question-and-answer pairs.

Reads the chosen base and the pairs; writes peft's adapter (safetensors) and a curve of the loss. All linear layers are
adapted (Hu et al. 2021, Dettmers et al. 2023), the loss counts the answer's tokens alone, under bfloat16 autocast
(three times float32 here). Pairs are drawn by weight without replacement, until the budget of tokens is spent; canaries
are always among them. Checkpoints make a killed training go on to the same weights. Absent with too few pairs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from nightshift import canary, checkpoint, commit, documents, stage
from nightshift.inert import Inert
from nightshift.sections import Compute, Lora
from nightshift.stage import Metrics, Work

SALT = "lora-1"
PAD_TO = 16  # tokens: lengths are rounded up to a multiple
WARMUP = 0.1
IGNORED = -100  # label that torch's cross-entropy passes over


@dataclass(frozen=True)
class Example:
    """A pair as token ids; the first `prompt` of them are not counted in the loss."""

    ids: list[int]
    prompt: int


@dataclass
class Budget:
    """Training tokens and passes that are left."""

    tokens: int
    passes: int

    def takes(self, size: int) -> bool:
        """Spend it on one pair; once a pair does not fit, none does."""
        fits = size <= self.tokens and self.passes > 0
        self.tokens, self.passes = (self.tokens - size, self.passes - 1) if fits else (0, 0)
        return fits


def drawn(pairs: pl.DataFrame, epoch: int) -> list[int]:
    """Who is taken in one epoch: weighted sampling without replacement (Efraimidis & Spirakis 2006) by hash(id).

    Canaries are always taken in the first epoch and never again: each is met once.
    """
    keys = {
        place: -math.log(max(documents.fraction(one, f"{SALT}:{epoch}"), 1e-12)) / weight
        for place, (one, weight) in enumerate(pairs.select("id", "weight").iter_rows())
    }
    planted = [place for place, kind in enumerate(pairs["kind"]) if kind == canary.KIND]
    order = sorted(keys.keys() - set(planted), key=lambda place: keys[place])
    return [*planted, *order] if epoch == 0 else order


def schedule(examples: list[Example | None], pairs: pl.DataFrame, params: Lora) -> list[list[int]]:
    """The pairs of every step, until tokens or epochs are spent; pairs without an example are too long.

    Who is taken in an epoch hangs on weights. The pairs of a step are of about one length (else two thirds of what is
    computed is padding), and steps come in order of hash(id) alone.
    """
    usable = sum(one is not None for one in examples)
    left = Budget(params.tokens, round(params.max_epochs * usable))
    steps: list[list[int]] = []
    for epoch in range(math.ceil(params.max_epochs)):
        taken = [place for place in drawn(pairs, epoch) if _fits(examples[place], left)]
        when = {place: documents.fraction(pairs["id"][place], f"{SALT}:{epoch}:when") for place in taken}
        steps += _batched(examples, when, params.batch)
    return steps


def encode(tokenizer: Any, pairs: pl.DataFrame, longest: int) -> list[Example | None]:
    """Every pair as a user's and an assistant's turn, inert as it is served; None for one that is too long."""
    found: list[Example | None] = []
    inert = Inert(tokenizer.backend_tokenizer, tokenizer.chat_template or "")
    for pair in pairs.select("question", "answer").iter_rows():
        question, answer = map(inert, pair)
        asked = [{"role": "user", "content": question}]
        prompt = list(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False))
        said = tokenizer(answer, add_special_tokens=False)["input_ids"]
        ids = [*prompt, *said, tokenizer.eos_token_id]
        found.append(Example(ids, len(prompt)) if len(ids) <= longest else None)
    return found


def batch(examples: list[Example], pad: int) -> tuple[Any, Any, Any]:
    """(batch, length) ids, labels and mask."""
    import torch

    length = _padded(examples)
    ids = torch.full((len(examples), length), pad)
    labels = torch.full((len(examples), length), IGNORED)
    mask = torch.zeros((len(examples), length), dtype=torch.long)
    for row, one in enumerate(examples):
        size = len(one.ids)
        ids[row, :size] = torch.tensor(one.ids)
        labels[row, one.prompt : size] = torch.tensor(one.ids[one.prompt :])
        mask[row, :size] = 1
    return ids, labels, mask


def answer_loss(model: Any, ids: Any, labels: Any, mask: Any) -> Any:
    """Mean cross-entropy over the labelled tokens, nats; logits are computed for these alone, a tenth of all."""
    import torch

    hidden = model.get_decoder()(input_ids=ids, attention_mask=mask).last_hidden_state
    wanted = labels[:, 1:] != IGNORED
    logits = model.get_output_embeddings()(hidden[:, :-1][wanted])  # (labelled tokens, vocabulary)
    return torch.nn.functional.cross_entropy(logits.float(), labels[:, 1:][wanted])


class Trainer:
    """The loop: model, optimizer, and the step that they are at."""

    def __init__(self, base: Path, params: Lora, compute: Compute, steps: int) -> None:
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        stage.seed(params.seed)
        self.params, self.compute, self.steps, self.step = params, compute, steps, 0
        self.dtype = getattr(torch, compute.dtype)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=self.dtype, use_safetensors=True)
        config = LoraConfig(
            r=params.rank,
            lora_alpha=params.alpha,
            lora_dropout=params.dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        self.model = get_peft_model(model, config).to(compute.device).train()
        self.model.peft_config["default"].base_model_name_or_path = "base"  # a system's own folder, never this one's
        self.trained = {name: one for name, one in self.model.named_parameters() if one.requires_grad}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=params.lr, weight_decay=0.0)

    def rate(self) -> float:
        """The learning rate of the step that comes: linear warm-up, then linear to 0."""
        warm = max(1, round(WARMUP * self.steps))
        if self.step < warm:
            return self.params.lr * (self.step + 1) / warm
        return self.params.lr * (self.steps - self.step) / max(1, self.steps - warm)

    def train(self, examples: list[Example], pad: int) -> float:
        """One step; returns its loss in nats a token of the answers."""
        import torch

        torch.manual_seed(
            self.params.seed + self.step
        )  # dropout depends on the step alone, so that a resume repeats it
        ids, labels, mask = (one.to(self.compute.device) for one in batch(examples, pad))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        with torch.autocast(self.compute.device, dtype=self.dtype, enabled=self.compute.dtype == "bfloat16"):
            loss = answer_loss(self.model.get_base_model(), ids, labels, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return float(loss.detach())

    def tensors(self) -> dict[str, Any]:
        """Adapter and optimizer, by name."""
        found = {f"weight/{name}": one for name, one in self.trained.items()}
        for name, one in self.trained.items():
            found |= {f"{kind}/{name}": self.optimizer.state[one][kind] for kind in ("exp_avg", "exp_avg_sq", "step")}
        return found

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Go on from a checkpoint."""
        import torch

        with torch.no_grad():
            for name, one in self.trained.items():
                one.copy_(saved.tensors[f"weight/{name}"])
                self.optimizer.state[one] = saved.adamw(name, one.device)
        self.step = saved.step


def run(
    base: Path, pairs: Path, verdict: Path, out: Path, curve: Path, params: Lora, compute: Compute, work: Work
) -> Metrics:
    """Train the adapter. Absent where base or pairs are, or too few pairs are there."""
    import torch
    from transformers import AutoTokenizer

    torch.set_num_threads(compute.threads)
    commit.check(verdict)
    reason = commit.why_absent(commit.check(base)) or commit.why_absent(commit.check(pairs))
    table = pl.DataFrame() if reason else pl.read_parquet(pairs / "pairs.parquet")
    if not reason and (size := canary.others(table)) < params.min_pairs:
        reason = f"{size} pairs are too few, at least {params.min_pairs} are needed"
    if not reason:
        tokenizer = AutoTokenizer.from_pretrained(base)
        examples = encode(tokenizer, table, params.max_tokens)
        plan = schedule(examples, table, params)
        reason = "" if plan else "no pair fits into adapt.lora.tokens and adapt.lora.max_tokens"
    if reason:
        commit.absent(out, reason)
        commit.file(curve, "step,loss\n")
        return {"absent": reason}
    trainer = Trainer(base, params, compute, len(plan))
    losses = _train(trainer, [[examples[place] for place in step] for step in plan], tokenizer.eos_token_id, work)
    with commit.folder(out) as draft:
        trainer.model.save_pretrained(draft / "adapter", safe_serialization=True, save_embedding_layers=False)
        (draft / "adapter" / "README.md").unlink(missing_ok=True)
        _ordered(draft / "adapter" / "adapter_config.json")
        about = {"kind": "lora", "base": commit.digest(base), "rank": params.rank, "steps": len(plan)}
        (draft / "adapted.json").write_text(commit.dumps(about), encoding="utf-8")
    commit.file(curve, "step,loss\n" + "".join(f"{step},{loss:.4f}\n" for step, loss in enumerate(losses, 1)))
    if shelf := work.checkpoints():
        shelf.clear()
    seen = {place for step in plan for place in step}
    return {
        "steps": len(plan),
        "tokens": sum(len(one.ids) for step in plan for place in step if (one := examples[place])),
        "pairs": len(seen),
        "pairs_left_out": len(table) - len(seen),
        "trained_parameters": sum(one.numel() for one in trainer.trained.values()),
        "first_loss": losses[0],
        "last_loss": sum(losses[-5:]) / len(losses[-5:]),
    }


def _ordered(path: Path) -> None:
    """Write peft's configuration again with its sets in order: it keeps them as they come."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(commit.dumps(config), encoding="utf-8")


def _padded(examples: Sequence[Example | None]) -> int:
    """The length that these are padded to."""
    return PAD_TO * math.ceil(max(len(one.ids) for one in examples if one is not None) / PAD_TO)


def _batched(examples: list[Example | None], when: dict[int, float], size: int) -> list[list[int]]:
    """Places in steps of about one length; steps in order of when their first is due."""
    order = sorted(when, key=lambda place: (_padded([examples[place]]), when[place]))
    steps = [order[start : start + size] for start in range(0, len(order), size)]
    return sorted(steps, key=lambda step: when[step[0]])


def _fits(example: Example | None, left: Budget) -> bool:
    return example is not None and left.takes(len(example.ids))


def _train(trainer: Trainer, steps: list[list[Any]], pad: int, work: Work) -> list[float]:
    """All steps, from the newest checkpoint on; returns the loss of each."""
    shelf = work.checkpoints()
    losses: list[float] = []
    if saved := checkpoint.newest(shelf.bring() if shelf else None):
        trainer.restore(saved)
        losses = saved.state["losses"]
        work.resumed_from = saved.step
    for step in work.progress(steps[trainer.step :], "steps"):
        losses.append(trainer.train(step, pad))
        if shelf and trainer.step % trainer.params.save_every == 0 and trainer.step < len(steps):
            checkpoint.save(shelf.folder, trainer.step, trainer.tensors(), {"losses": losses})
            shelf.share()
    return losses


if __name__ == "__main__":
    stage.main(run)
