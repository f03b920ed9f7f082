"""Turn documents into the token stream that pretraining reads, up to a budget.

Reads the tokenizer and the balanced rows; writes train.bin and validation.bin (uint16, little-endian; every document
followed by the end token, and whole, but for the last of each) and packed.json. Documents come in order of hash(id):
the first fill the validation stream, the next the training stream, so that a document outside the budget changes
nothing. A document whose rows weigh more is read as often as its mean weight says, rounded by hash(id).
Encoding is tiktoken's over the same merges (four times as fast on one thread); that its ids are the tokenizer's own is
checked each night on a sample.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nightshift import commit, documents, stage
from nightshift.errors import DataRefused
from nightshift.pretrain.tokenizer import END, texts
from nightshift.sections import Pack
from nightshift.stage import Metrics, Work

Tokens = npt.NDArray[np.uint16]
SALT = "packed-1"
CHECKED = 20  # documents whose ids are compared with the tokenizer's
# how GPT-2 cuts a text before merging, which is what byte-level pre-tokenizers do
PIECES = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


@dataclass
class Stream:
    """Tokens of documents, up to a budget; the last is cut where it ends."""

    budget: int
    tokens: list[Tokens] = field(default_factory=list)
    size: int = 0
    documents: int = 0

    @property
    def full(self) -> bool:
        """Whether the budget is spent."""
        return self.size >= self.budget

    def add(self, ids: list[int]) -> bool:
        """Take of a document what fits; returns whether anything did."""
        if self.full:
            return False
        taken = ids[: self.budget - self.size]
        self.tokens.append(np.array(taken, dtype="<u2"))
        self.size += len(taken)
        self.documents += 1
        return True

    def content(self) -> bytes:
        """The whole stream."""
        return b"".join(part.tobytes() for part in self.tokens)


def encoder(tokenizer: dict[str, Any]) -> Any:
    """A tiktoken encoding with the vocabulary of this tokenizer.json; its ids rise in the order of merges."""
    import tiktoken

    letters = {letter: byte for byte, letter in byte_letters().items()}
    special = {one["content"] for one in tokenizer["added_tokens"]}
    ranks = {
        bytes(letters[letter] for letter in token): rank
        for token, rank in tokenizer["model"]["vocab"].items()
        if token not in special
    }
    return tiktoken.Encoding("nightshift", pat_str=PIECES, mergeable_ranks=ranks, special_tokens={})


def byte_letters() -> dict[int, str]:
    """Byte → the letter that stands for it in byte-level vocabularies: itself where it is printable (GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def whole(table: pl.DataFrame, weights: dict[str, float]) -> Iterator[tuple[str, int]]:
    """(text of a document, how often it is read), in order of hash(id)."""
    parts = table.partition_by("document", as_dict=True)
    for key in sorted(parts, key=lambda one: documents.fraction(str(one[0]), SALT)):
        rows = parts[key]
        mean = sum(weights[one] for one in rows["id"]) / len(rows)
        times = int(mean + documents.fraction(str(key[0]), f"{SALT}:times"))
        yield "\n".join(texts(rows)), times


def run(tokenizer: Path, balanced: Path, out: Path, params: Pack, work: Work) -> Metrics:
    """Pack the corpus. Absent where the tokenizer is, or with too few tokens."""
    reason = commit.why_absent(commit.check(tokenizer))
    if reason:
        commit.absent(out, reason)
        return {"absent": reason}
    table = documents.read(balanced)
    weights = dict(pl.read_parquet(balanced / "weights.parquet").select("id", "weight").iter_rows())
    said = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    encoding, end = encoder(said), said["model"]["vocab"].get(END, 0)
    _same_ids(tokenizer, encoding, table)
    validation, train = Stream(params.validation_tokens), Stream(params.tokens)
    left_out = 0
    for text, times in whole(table, weights):
        ids = [] if train.full else [*encoding.encode_ordinary(text), end]
        if not validation.full:
            validation.add(ids)
        else:
            left_out += sum(train.add(ids) for _ in range(times)) == 0
    if train.size < params.min_tokens or not validation.size:
        reason = f"{train.size} tokens are too few to train on, at least {params.min_tokens} are needed"
        commit.absent(out, reason)
        return {"absent": reason}
    about = {"vocabulary": len(said["model"]["vocab"]), "tokens": train.size, "documents": train.documents}
    held_out = np.concatenate(validation.tokens)
    size = len(encoding.decode_bytes([int(one) for one in held_out if one != end]))
    about |= {"validation_tokens": validation.size, "validation_bytes": size}
    with commit.folder(out) as draft:
        (draft / "train.bin").write_bytes(train.content())
        (draft / "validation.bin").write_bytes(validation.content())
        (draft / "packed.json").write_text(commit.dumps(about), encoding="utf-8")
    return about | {"documents_left_out": left_out}


def _same_ids(tokenizer: Path, encoding: Any, table: pl.DataFrame) -> None:
    """Raises DataRefused when the fast way to encode gives other ids than the tokenizer."""
    from tokenizers import Tokenizer as Bpe

    own = Bpe.from_file(str(tokenizer / "tokenizer.json"))
    for text in texts(table.head(CHECKED)):
        if END not in text and own.encode(text).ids != encoding.encode_ordinary(text):
            raise DataRefused(
                "tiktoken and the tokenizer give different ids", str(tokenizer), "report it with the text"
            )


if __name__ == "__main__":
    stage.main(run)
