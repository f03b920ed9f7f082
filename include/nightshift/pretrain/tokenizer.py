"""Learn a byte-level BPE vocabulary from the training rows.

Reads the balanced rows in the order of their ids; writes a Hugging Face tokenizer with a chat template. Byte-level: no
text is unknown to it. Absent with too little text, which leaves pretraining absent too.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from nightshift import commit, documents, stage
from nightshift.sections import Tokenizer
from nightshift.stage import Metrics, Work

END, PAD = "<|end|>", "<|pad|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def texts(table: pl.DataFrame) -> Iterator[str]:
    """What the vocabulary is learned from, a section at a time."""
    for title, body in table.select("title", "body").iter_rows():
        yield f"{title}\n{body}\n"


def learn(lines: Iterator[str], vocabulary: int) -> Any:
    """A `tokenizers.Tokenizer`: special tokens first, then bytes, then merges in the order they were learned."""
    from tokenizers import Tokenizer as Bpe
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = Bpe(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[END, PAD, *ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(lines, trainer)
    return made


def run(start: Path, balanced: Path, verdict: Path, out: Path, params: Tokenizer, work: Work) -> Metrics:
    """Learn a vocabulary, or take the one that pretraining starts from."""
    commit.check(verdict)
    if not commit.why_absent(commit.check(start)):
        with commit.folder(out) as draft:
            for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                shutil.copyfile(start / name, draft / name)
        return {"from": "start"}
    table = documents.read(balanced)
    size = int(table["body"].str.len_chars().sum())
    if size < params.min_characters:
        reason = f"{size} characters are too few for a vocabulary, at least {params.min_characters} are needed"
        commit.absent(out, reason)
        return {"absent": reason}
    from transformers import PreTrainedTokenizerFast

    learned = learn(texts(table), params.vocabulary)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=learned, eos_token=END, pad_token=PAD)
    wrapped.chat_template = CHAT
    with commit.folder(out) as draft:
        wrapped.save_pretrained(draft)
    return {"vocabulary": len(wrapped), "characters": size}


if __name__ == "__main__":
    stage.main(run)
