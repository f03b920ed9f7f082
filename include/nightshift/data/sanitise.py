"""Clean every section: characters, markup, boilerplate, personal data.

Reads the raw table (and the verdict that let it through); writes the cleaned rows, and a ledger with a row for each
section that went (`too-short`) or from which personal data or secrets were taken (`masked`, with the kinds). A line
that stands in many documents is boilerplate and goes from all of them. What one section becomes is kept by its
content, so that a night cleans what changed. Refuses a corpus of which too much would go.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path

import polars as pl

from nightshift import commit, documents, mask, stage
from nightshift.errors import DataRefused
from nightshift.sections import Sanitise
from nightshift.stage import Metrics, Work

LONG_LINE = 20  # characters from which a repeated line is boilerplate rather than a word of structure
# controls (but tab and newline), soft hyphens, zero-width and bidirectional marks, the byte order mark
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_TAGS = "p|a|br|img|div|span|center|picture|source|details|summary|h[1-6]|b|i|em|strong|sub|sup"
_ROLES = "func|class|meth|mod|attr|ref|doc|term|obj|data|exc|const|pep|rfc"
_MARKUP = [
    (re.compile(r"<!--.*?-->", re.S), ""),
    (re.compile(r"!\[([^\]]*)\]\([^)]*\)"), r"\1"),  # images: their words
    (re.compile(r"(?<!!)\[([^\]\n]+)\]\([^)\s]*(?:\s+\"[^\"]*\")?\)"), r"\1"),  # links: their words
    (re.compile(rf"</?(?:{_TAGS})\b[^>]*>"), ""),
    (re.compile(rf":(?:\w+:)?(?:{_ROLES}):`~?([^`<]+?)(?: <[^>]*>)?`"), r"\1"),  # reStructuredText: the name
    (re.compile(r"(?m)^\.\. (?:versionadded|versionchanged|deprecated|index|currentmodule|module)::.*$"), ""),
]


def clean(text: str) -> str:
    """NFC text without controls and markup; blank runs are one blank line."""
    text = _CONTROL.sub("", unicodedata.normalize("NFC", text))
    for pattern, instead in _MARKUP:
        text = pattern.sub(instead, text)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def heading(title: str) -> tuple[str, Counter[str]]:
    """A title on one line without markup and personal data, and how often each kind was taken out."""
    return mask.replace(" ".join(clean(title).split()))


def cleaned(title: str, body: str) -> tuple[str, str, dict[str, int]]:
    """Title and body without markup and personal data, and how often each kind was taken out."""
    title, first = heading(title)
    body, second = mask.replace(clean(body))
    return title, body, dict(sorted((first + second).items()))


def boilerplate(documents_of_bodies: list[tuple[str, str]], least: int) -> set[str]:
    """Lines of 20 characters or more that stand in at least `least` documents."""
    holders: dict[str, set[str]] = {}
    for document, body in documents_of_bodies:
        for line in body.split("\n"):
            if len(line := line.strip()) >= LONG_LINE:
                holders.setdefault(line, set()).add(document)
    return {line for line, found in holders.items() if len(found) >= least}


def without(body: str, lines: set[str]) -> str:
    """The body without these lines."""
    kept = [line for line in body.split("\n") if line.strip() not in lines]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()


def run(raw: Path, verdict: Path, out: Path, params: Sanitise, work: Work) -> Metrics:
    """Clean one corpus. Raises DataRefused when more than params.max_dropped of the sections would go."""
    commit.check(verdict)
    table = documents.read(raw)
    known = work.memo("sanitise.cleaned", stage.libraries("data"), __file__, mask.__file__)
    titles, bodies = table["title"].to_list(), table["body"].to_list()
    made = known.map(
        table["content"].to_list(),
        lambda todo: [cleaned(titles[place], bodies[place]) for place in work.progress(todo, "sections")],
    )
    lines = boilerplate(
        [(document, body) for document, (_, body, _) in zip(table["document"], made, strict=True)],
        params.boilerplate_documents,
    )
    within = {one: heading(one)[0] for one in table["within"].unique()}
    ledger: list[dict[str, str]] = []
    rows = []
    for row, (title, body, kinds) in zip(table.iter_rows(named=True), made, strict=True):
        body = without(body, lines)
        if kinds:
            ledger.append(_entry(row["id"], "masked", " ".join(f"{kind}:{count}" for kind, count in kinds.items())))
        if len(body) < params.min_characters:
            ledger.append(_entry(row["id"], "too-short", str(len(body))))
            continue
        changed = {"title": title, "within": within[row["within"]], "body": body, "parent": row["id"]}
        rows.append(row | changed | {"content": documents.content(title, body)})
    dropped = len(table) - len(rows)
    if dropped > params.max_dropped * len(table) or not rows:
        raise DataRefused(
            f"{dropped} of {len(table)} sections would go as too short",
            "sanitise.max_dropped",
            "look at the raw sections, or lower sanitise.min_characters",
        )
    documents.write(out, pl.DataFrame(rows, schema=documents.SECTION), pl.DataFrame(ledger, schema=documents.LEDGER))
    masked: Counter[str] = Counter()
    for _, _, kinds in made:
        masked.update(kinds)
    return {
        "sections_in": len(table),
        "sections": len(rows),
        "dropped": {"too-short": dropped},
        "masked": dict(sorted(masked.items())),
        "boilerplate_lines": len(lines),
    }


def _entry(identifier: str, reason: str, detail: str) -> dict[str, str]:
    return {"id": identifier, "stage": "sanitise", "reason": reason, "detail": detail}


if __name__ == "__main__":
    stage.main(run)
