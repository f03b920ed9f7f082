"""Commands about what was answered: where an answer came from, and what another release says to the same question."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from nightshift.place import Place

if TYPE_CHECKING:
    from nightshift.spans import Tracer

Trace = Annotated[str, typer.Argument(help="An answer's x-trace-id, or its first digits")]


def trace(
    identifier: Trace,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as JSON")] = False,
    rows: Annotated[bool, typer.Option("--rows", help="With the text of the raw rows, which is not scrubbed")] = False,
) -> None:
    """Show the release, prompt and sections behind an answer, back to the raw source rows."""
    from nightshift.spans import FOLDER
    from nightshift.store import Store
    from nightshift.watch import trace as watch

    place = Place.here()
    requests = watch.find(place.home / FOLDER, identifier)
    made, past = watch.origin(Store(place.root, place.home, place.state), requests[0])
    if not as_json:
        print(watch.told(requests[0], made), flush=True)
        if len(requests) > 1:
            print(f"  The newest of {len(requests)} requests of this trace.", flush=True)
    walked = watch.walk(past, requests[0].sections)
    if as_json:
        print(json.dumps(watch.as_json(requests[0], made, walked, rows), indent=2, ensure_ascii=False))
    else:
        print(watch.told_sections(walked, rows))


def replay(
    identifier: Trace,
    against: Annotated[str | None, typer.Option(help="A version; the one in production unless given")] = None,
    question: Annotated[str | None, typer.Option(help="What was asked, where its words were not kept")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Both answers as JSON")] = False,
) -> None:
    """Ask the release of a trace and another one the same question."""
    import shutil

    from nightshift import params
    from nightshift.sections import Compute
    from nightshift.serving import Engines
    from nightshift.spans import FOLDER
    from nightshift.watch import replay as watch
    from nightshift.watch.trace import find

    place = Place.here()
    traced = find(place.home / FOLDER, identifier)[0]
    asked = watch.question(place.home / FOLDER, traced.trace, question)
    releases = watch.pair(place.root, str(traced.said.get("release", "")), against)
    threads = params.load(place.root / params.FILE, Compute).threads
    kind = params.load(place.root / params.FILE, Engines).kind
    groups = _groups(place, str(traced.said.get("key", "")))
    one, other = (watch.ask(place.root, place.home, place.state, of, asked, groups, threads, kind) for of in releases)
    if as_json:
        print(
            json.dumps({"question": asked, "answers": [one.as_json(), other.as_json()]}, ensure_ascii=False, indent=2)
        )
    else:
        print(f"{asked}\n\n{watch.side_by_side((one, other), shutil.get_terminal_size((120, 40)).columns)}")


def _groups(place: Place, key: str) -> tuple[str, ...]:
    """Whose documents the asker may see now; everyone's where the key is no more."""
    from nightshift.serve.keys import Keys

    return next((one.groups for one in Keys(place.home).listed() if one.id == key), ("public",))


def tracer(place: Place) -> Tracer:
    """The endpoint's tracer as params.yaml asks for it, with Langfuse where that is named.

    Raises ParamsError, AccessDenied where Langfuse's keys are not in the environment.
    """
    from nightshift import params, tracing

    asked = params.load(place.root / params.FILE, tracing.Traces)
    if asked.langfuse is None:
        return tracing.tracer(place.home, asked, "gateway")
    from nightshift.integrations import langfuse, langfuse_scores
    from nightshift.integrations.langfuse_prompts import Prompts

    server = langfuse.Server.of(asked.langfuse.url)
    outlets = [langfuse.outlet(asked.langfuse, asked.queue, Prompts(server).linked)]
    raters = [langfuse_scores.rater(server, asked.langfuse.environment, asked.queue)]
    return tracing.tracer(place.home, asked, "gateway", outlets, raters)
