"""Turn every discovered file into sections.

Reads sources.json and the files that it names; writes the raw section table, and beside it the files that could not
be used, with the reason (`quarantine.parquet`). What one file becomes is kept by its hash, so that a night costs
what changed. Refuses a file that changed since it was discovered, and a source of which no file could be used.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path, PurePosixPath

import polars as pl

from nightshift import commit, documents, stage
from nightshift.data import markup, source
from nightshift.errors import SourceError
from nightshift.sections import Sources
from nightshift.stage import Metrics, Work

QUARANTINE = pl.Schema({"source": pl.String(), "path": pl.String(), "sha256": pl.String(), "reason": pl.String()})


def parts(content: bytes, path: str, max_bytes: int) -> tuple[list[markup.Part], str | None]:
    """The sections of one file, or the reason why there are none: too-large, not-text, unparsable, empty."""
    if len(content) > max_bytes:
        return [], "too-large"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return [], "not-text"
    if "\x00" in text:
        return [], "not-text"
    name = PurePosixPath(path)
    try:
        found = _READERS[_kind(name)](text.replace("\r\n", "\n"), _title(name))
    except (SyntaxError, ValueError, RecursionError):
        return [], "unparsable"
    # a Python file without docstrings is common and says nothing: it is not a bad file
    return found, None if found or name.suffix == ".py" else "empty"


def rows(item: source.Item, found: list[markup.Part]) -> list[dict[str, object]]:
    """The rows of one document; equal titles are told apart by their ordinal."""
    document = documents.key(item.source, item.path)
    seen: Counter[str] = Counter()
    made = []
    for part in found:
        title = " > ".join(part.title)
        ordinal = seen[title]
        seen[title] += 1
        made.append(
            {
                "id": documents.key(item.source, item.path, title, ordinal),
                "document": document,
                "parent": document,
                "within": _within(part.title),
                "title": title,
                "body": part.body,
                "source": item.source,
                "rank": item.rank,
                "path": item.path,
                "licence": item.licence,
                "groups": list(item.groups),
                "content": documents.content(title, part.body),
            }
        )
    return made


def run(sources: Path, out: Path, params: Sources, work: Work) -> Metrics:
    """Read every file. Raises SourceError when a file changed meanwhile or none of a source could be used."""
    items = [source.Item.of(entry) for entry in json.loads(sources.read_text(encoding="utf-8"))["items"]]
    by_name = {one.name: one for one in params.items}
    known = work.memo("ingest.parts", [params.max_file_bytes, stage.libraries("data")], __file__, markup.__file__)

    def compute(todo: list[int]) -> list[tuple[list[tuple[tuple[str, ...], str]], str | None]]:
        results = []
        for place in work.progress(todo, "files"):
            item = items[place]
            content = source.read(item, by_name[item.source], work.sources)
            found, reason = parts(content, item.path, params.max_file_bytes)
            results.append(([(part.title, part.body) for part in found], reason))
        return results

    read = known.map([documents.key(item.path, item.sha256) for item in items], compute)
    table: list[dict[str, object]] = []
    bad: list[dict[str, str]] = []
    for item, (found, reason) in zip(items, read, strict=True):
        table += rows(item, [markup.Part(tuple(title), body) for title, body in found])
        if reason:
            bad.append({"source": item.source, "path": item.path, "sha256": item.sha256, "reason": reason})
    _usable(items, bad, table)
    _write(out, table, bad)
    return {
        "files": len(items),
        "sections": len(table),
        "characters": sum(len(str(row["body"])) for row in table),
        "quarantined": dict(sorted(Counter(entry["reason"] for entry in bad).items())),
    }


def _usable(items: list[source.Item], bad: list[dict[str, str]], table: list[dict[str, object]]) -> None:
    """Refuse a source of which no file could be used, and a night without a single section."""
    wrong = Counter(entry["source"] for entry in bad)
    for name, files in Counter(item.source for item in items).items():
        if wrong[name] == files:
            first = next(entry for entry in bad if entry["source"] == name)
            what = f"no file of this source could be used: {first['path']} is {first['reason']}"
            do = "put files of UTF-8 text there, or take the source out of params.yaml"
            raise SourceError(f"{what}, and {files - 1} more" if files > 1 else what, f"source {name}", do)
    if not table:
        raise SourceError("the sources hold no section", "params.yaml: sources", "name others there")


def _kind(name: PurePosixPath) -> str:
    return "python" if name.suffix == ".py" else source.READ[name.suffix.lower()]


def _title(name: PurePosixPath) -> str:
    """What a document is called: a module by its path below the package's folder, others by their path."""
    inside = name.relative_to(name.parts[0]) if "==" in name.parts[0] else name
    if name.suffix == ".py":
        return str(inside)
    return name.parts[0].partition("==")[0] if inside.name == "README.md" and inside != name else str(inside)


def _within(title: tuple[str, ...]) -> str:
    """The title that siblings share: all but the last step of a path or of a dotted name."""
    if len(title) > 1:
        return " > ".join(title[:-1])
    return title[0].rpartition(".")[0] or title[0].rpartition("/")[0]


def _write(out: Path, table: list[dict[str, object]], bad: list[dict[str, str]]) -> None:
    frame = pl.DataFrame(table, schema=documents.SECTION).unique("id", keep="first", maintain_order=True).sort("id")
    with commit.folder(out) as draft:
        documents.store(draft / "rows.parquet", frame)
        documents.store(draft / "ledger.parquet", pl.DataFrame(schema=documents.LEDGER))
        documents.store(draft / "quarantine.parquet", pl.DataFrame(bad, schema=QUARANTINE).sort("source", "path"))


_READERS = {"python": markup.python, "markdown": markup.markdown, "html": markup.html, "text": markup.text}

if __name__ == "__main__":
    stage.main(run)
