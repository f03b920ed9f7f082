"""Take the control out of a text: what a document or a user wrote is read as text, never as a turn's begin or end.

A chat template sets turns apart by special tokens, and a tokenizer takes the same letters in a text for the same
tokens: `<|im_end|>` in a document would end the user's turn, and what follows could be the system's. So each such
marker is broken by a blank behind its first letter. Which there are, the tokenizer says; markers of other families of
models are broken too, since a model may have been trained on them as text. Where a template has no special token and
sets turns apart by lines that name a role, such lines are broken instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# of ChatML, Llama 2 to 4, Gemma, Phi, Zephyr, Qwen and DeepSeek
_KNOWN = r"<[|｜][^\s<>|｜]{1,40}[|｜]>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<(?:bos|eos)>"
_ROLE = r"(?m:^(?:system|developer|user|assistant|tool):[ \t]*$)"


@dataclass(frozen=True)
class Inert:
    """Makes texts inert for one tokenizer.

    Args:
        tokens: a `tokenizers.Tokenizer`; None knows the common markers alone.
        template: its chat template, Jinja's source.
    """

    tokens: Any = None
    template: str = ""

    def __call__(self, text: str) -> str:
        """The text without a marker that works; one that has none is returned as it is."""
        while self._pattern.search(text):  # a broken one may leave another that overlapped it
            text = self._pattern.sub(lambda hit: _broken(hit[0]), text)
        while self._normalized and (spans := self._read(text)):
            for start, end in reversed(spans):
                text = text[:start] + _broken(text[start:end]) + text[end:]
        return text

    @cached_property
    def _special(self) -> dict[int, Any]:
        """The tokenizer's special tokens by id."""
        added = self.tokens.get_added_tokens_decoder() if self.tokens is not None else {}
        return {number: one for number, one in added.items() if one.special and one.content.strip()}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        own = sorted((one.content for one in self._special.values()), key=len, reverse=True)
        plain = self.template and not any(one in self.template for one in own)
        return re.compile("|".join([*map(re.escape, own), _KNOWN, *([_ROLE] if plain else [])]))

    @cached_property
    def _normalized(self) -> bool:
        """Whether some are looked for in a text that was normalised first: other letters may then become one."""
        return any(one.normalized for one in self._special.values())

    def _read(self, text: str) -> list[tuple[int, int]]:
        """Where the tokenizer itself reads special tokens."""
        read = self.tokens.encode(text, add_special_tokens=False)
        spans = zip(read.ids, read.offsets, strict=True)
        return [span for number, span in spans if number in self._special and span[1] > span[0]]


def _broken(marker: str) -> str:
    """A marker with a blank in it: before a role's colon, else behind the first letter; a single letter goes."""
    if marker.rstrip().endswith(":"):
        return marker.replace(":", " :")
    lead = len(marker) - len(marker.lstrip())  # a token may take the blanks beside it
    bare = marker.strip()
    return f"{marker[: lead + 1]} {marker[lead + 1 :]}" if len(bare) > 1 else " "
