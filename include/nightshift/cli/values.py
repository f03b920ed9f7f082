"""Commands about params.yaml and what it makes of documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nightshift.place import Place


def check() -> None:
    """Check the whole of params.yaml and what it names, the prompts, and that dvc.yaml can be run.

    Where a bundle was unpacked no night runs, and nothing that only nights need is asked for.
    """
    from nightshift import params, pipeline
    from nightshift.cli import named

    place = Place.here()
    root = place.root
    params.check(root / params.FILE)
    for path in sorted((root / "include" / "prompts").glob("*.yaml")):
        _without_secrets(path)
    if pipeline.runs(root):
        pipeline.check(root)
        named.sources(place)
    named.check(place)


def _without_secrets(path: Path) -> None:
    """Raises ParamsError for a prompt that is none, or that holds a secret."""
    from nightshift import mask
    from nightshift.answer import Template
    from nightshift.errors import ParamsError

    texts = Template.read(path).model_dump().items()
    if held := next((name for name, text in texts for one in mask.find(text) if one.kind == "SECRET"), None):
        do = "take it out: whoever asks can have a prompt repeated, in words that nothing masks"
        raise ParamsError(f"`{held}` holds a secret", str(path), do)


def profile(name: Annotated[str, typer.Argument(help="laptop, tiny or gpu")]) -> None:
    """Write a profile's values into the sections of params.yaml."""
    from nightshift import params

    params.apply(Place.here().root / params.FILE, name)


def side(path: Annotated[str, typer.Argument(help="Path of a document inside its source")]) -> None:
    """Say which source holds a document, and on which side of the split it is: train, validation or test."""
    from nightshift import documents, params
    from nightshift.data.find import holders
    from nightshift.data.split import side as of
    from nightshift.sections import Sources, Split

    place = Place.here()
    file, lock = place.root / params.FILE, place.root / "requirements.txt"
    split, sources = params.load(file, Split), params.load(file, Sources)
    for name, inside in holders(path, sources, place.sources, lock.read_text(encoding="utf-8")):
        print(f"{name}: {of(documents.key(name, inside), split)}")
