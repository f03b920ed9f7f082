"""The command that asks the endpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from nightshift.cli.keys import first_key
from nightshift.place import Place


def ask(
    file: Annotated[Path, typer.Option(help="Questions: a line each, as text or as JSON with `question`")],
    out: Annotated[Path, typer.Option(help="Answers, as JSON lines in the same order")],
    url: Annotated[str | None, typer.Option(help="The endpoint, with /v1; this project's unless given")] = None,
    key: Annotated[Path | None, typer.Option(help="File with the key; the first key unless given")] = None,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="Questions that are asked at the same time")] = 1,
) -> None:
    """Answer a file of questions; killed, and typed again, it goes on where it was."""
    from nightshift import batch

    asked = batch.questions(file)
    place = Place.here()
    text = (key or first_key(place)).read_text(encoding="utf-8").strip()
    endpoint = batch.Endpoint(url or place.endpoint().url, text)
    failed = batch.run(asked, out, endpoint.ask, at_once)
    print(f"{len(asked):,} questions, of which {failed:,} were refused: {out}", file=sys.stderr)
