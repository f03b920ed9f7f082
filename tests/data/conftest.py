"""Small corpora as section tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from nightshift import documents

Table = Callable[..., Path]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Write rows given as (document, title, body) or dicts as a section table; returns its folder."""

    def make(name: str, rows: list[Any]) -> Path:
        made = [row if isinstance(row, dict) else section(*row) for row in rows]
        documents.write(tmp_path / name, pl.DataFrame(made, schema=documents.SECTION))
        return tmp_path / name

    return make


def section(document: str, title: str, body: str, **more: Any) -> dict[str, Any]:
    """One row; siblings share all but the last step of their title."""
    key = documents.key("notes", document)
    row = {
        "id": documents.key("notes", document, title, 0),
        "document": key,
        "parent": key,
        "within": title.rpartition(" > ")[0] or title.rpartition(".")[0],
        "title": title,
        "body": body,
        "source": "notes",
        "rank": 0,
        "path": document,
        "licence": "CC0-1.0",
        "groups": ["public"],
        "content": documents.content(title, body),
    }
    return row | more
