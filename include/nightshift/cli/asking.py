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
    endpoint = batch.Endpoint(url or place.endpoint().url, text, say=_say)
    failed = batch.run(asked, out, endpoint.ask, at_once)
    count = "1 question" if len(asked) == 1 else f"{len(asked):,} questions"
    _say(f"{count}, of which {failed:,} {'was' if failed == 1 else 'were'} refused: {out}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
