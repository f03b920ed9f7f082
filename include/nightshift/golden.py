"""Questions whose right answers are known, and what the release said to them when it was judged.

The judge writes them for every system that it asks: test items that everyone may see, with the answer that the section
gives, the one that the serving engine gave (the model itself, where the engine was not asked), and whether the section
was among those shown. A release carries its own (`golden.json`). An answer passes when it is still the one that was
judged, or as right as that, and the section is found if it was found then: so that an engine that says something else,
an index that lost its sections or a prompt that went wrong fail, whatever the model is worth.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nightshift import score
from nightshift.errors import ReleaseInvalid

FILE = "golden.json"
# token F1 from which two answers count as the same: of 24 greedy tokens the serving engine and the judged model part
# late or never (evaluate.engine_items), and texts that have nothing to do with each other share a tenth
SAME = 0.5


@dataclass(frozen=True)
class Golden:
    """One question.

    Args:
        id: of the item.
        question: as it is asked, alone, greedily, by somebody of the group public.
        section: id of the section that answers it.
        wanted: the answer in that section's words.
        said: what the release answered when it was judged.
        shown: whether the section was among those that it answered from.
    """

    id: str
    question: str
    section: str
    wanted: str
    said: str
    shown: bool

    def as_json(self) -> dict[str, Any]:
        """As golden.json holds it."""
        return asdict(self)


def read(release: Path) -> list[Golden]:
    """Those of a release; none for one that was made before there were any. Raises ReleaseInvalid."""
    path = release / FILE
    if not path.is_file():
        return []
    try:
        return [Golden(**one) for one in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise ReleaseInvalid(f"its golden questions cannot be read ({error})", str(path), "make it again") from None


def grade(one: Golden, answer: str, sections: Sequence[str]) -> bool:
    """Whether an answer, given from the sections with these ids, is as good as the one that was judged."""
    right = score.token_f1(answer, one.wanted)
    as_judged = score.token_f1(answer, one.said) >= SAME or right >= max(SAME, score.token_f1(one.said, one.wanted))
    return as_judged and (not one.shown or one.section in sections)
