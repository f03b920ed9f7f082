"""A prompt of ours in the notation of others, where the places have other names.

Ours fills `{name}` for the names that it knows and leaves every other brace alone, and so does LlamaIndex in prompts;
`str.format`, with which LangChain fills prompts and LlamaIndex shows sections, takes any brace for a place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping


def renamed(text: str, places: Mapping[str, str]) -> str:
    """`text` with {name} become what `places` says of it, and nothing else changed."""
    return re.sub(r"\{(\w+)\}", lambda found: places.get(found[1], found[0]), text)


def escaped(text: str, places: Mapping[str, str]) -> str:
    """`text` for `str.format`: as `renamed`, and every other brace doubled."""
    known = "|".join(re.escape(name) for name in places)
    return re.sub(rf"\{{({known})\}}|[{{}}]", lambda found: places.get(found[1] or "", found[0] * 2), text)
