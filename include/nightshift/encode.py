"""Texts to unit vectors by a sentence encoder in a Hugging Face folder (all-MiniLM-L6-v2 unless another is given).

The mean of the last hidden states over a text's tokens, at unit length, as the model was trained. Texts are padded to
fixed buckets, since the padded length changes a vector by about 1e-6 and neighbours must not: a vector depends on its
text alone. bfloat16 is three times as fast as float32 on two cores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

BUCKETS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)  # padded lengths, tokens
TOKENS_A_BATCH = 4096
Vectors = npt.NDArray[np.float16]


class Encoder:
    """A loaded encoder; vectors are float16, (texts, width)."""

    def __init__(self, model: Any, tokenizer: Any, device: str) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self.width = int(model.config.hidden_size)
        self._cutting = Lock()  # how much is cut is the tokenizer's state, which all threads share

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", dtype: str = "bfloat16") -> Encoder:
        """Load from a folder with config.json, model.safetensors and tokenizer.json."""
        import torch
        from transformers import AutoModel

        model = AutoModel.from_pretrained(folder, dtype=getattr(torch, dtype), use_safetensors=True)
        return cls(model.eval().to(device), tokenizer(folder), device)

    def encode(self, texts: Sequence[str], first_tokens: int) -> Vectors:
        """Vectors of the first tokens of each text; what is longer is cut."""
        out = np.zeros((len(texts), self.width), dtype=np.float16)
        ids = self._cut(texts, first_tokens)
        for places in _batches(ids):
            out[places] = self._vectors([ids[place] for place in places])
        return out

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, whole; of one over twelve characters a token of the longest bucket, at least that."""
        return [len(one) for one in self._cut(texts, BUCKETS[-1] + 1)]

    def _cut(self, texts: Sequence[str], first_tokens: int) -> list[list[int]]:
        with self._cutting:
            return [one.ids for one in cut(self.tokenizer, texts, first_tokens)]

    def _vectors(self, ids: list[list[int]]) -> Vectors:
        import torch

        length = bucket(len(ids[0]))
        tokens = torch.zeros((len(ids), length), dtype=torch.long)
        mask = torch.zeros((len(ids), length), dtype=torch.long)
        for row, one in enumerate(ids):
            tokens[row, : len(one)] = torch.tensor(one)
            mask[row, : len(one)] = 1
        with torch.inference_mode():
            hidden = self.model(input_ids=tokens.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
        weight = mask.to(self.device).unsqueeze(-1).float()
        mean = (hidden.float() * weight).sum(dim=1) / weight.sum(dim=1)
        unit = torch.nn.functional.normalize(mean, dim=1)
        vectors: Vectors = unit.cpu().numpy().astype(np.float16)
        return vectors


def tokenizer(folder: Path) -> Any:
    """The folder's fast tokenizer, without padding or truncation of its own."""
    from tokenizers import Tokenizer

    found = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found.no_padding()
    found.no_truncation()
    return found


def cut(tokens: Any, texts: Sequence[str], first_tokens: int) -> list[Any]:
    """Encodings of the first tokens of each text. Reads at most 12 characters a token of it."""
    tokens.enable_truncation(max_length=first_tokens)
    found: list[Any] = tokens.encode_batch([text[: 12 * first_tokens] for text in texts])
    return found


def bucket(length: int) -> int:
    """The padded length of a text of this many tokens."""
    return next((size for size in BUCKETS if size >= length), length)


def _batches(ids: list[list[int]]) -> Iterable[list[int]]:
    """Places of texts of one bucket, as many as fit into a batch."""
    groups: dict[int, list[int]] = defaultdict(list)
    for place, one in enumerate(ids):
        groups[bucket(len(one))].append(place)
    for length, places in sorted(groups.items()):
        step = max(1, TOKENS_A_BATCH // length)
        yield from (places[start : start + step] for start in range(0, len(places), step))
