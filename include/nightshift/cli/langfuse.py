"""Commands about Langfuse: whether it answers, prompts both ways, a release's items as an experiment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nightshift.place import Place

if TYPE_CHECKING:
    from nightshift.integrations.langfuse import Server

app = typer.Typer(help="Langfuse: prompts, experiments, and whether it answers.", no_args_is_help=True)


@app.command()
def check() -> None:
    """Ask the server that params.yaml names for its version and project."""
    server = _server(Place.here())
    print(f"Langfuse {server.current()} at {server.url}, project {server.project()}.")


@app.command()
def push(
    force: Annotated[bool, typer.Option("--force", help="Also over what was edited in Langfuse")] = False,
) -> None:
    """Make Langfuse hold the prompts that Git has, and label what each environment serves."""
    from nightshift.integrations import langfuse_prompts as prompts

    place = Place.here()
    for line in prompts.push(prompts.Prompts(_server(place)), place.root, force):
        print(line)


@app.command()
def pull() -> None:
    """Write prompts that were edited in Langfuse into the work tree."""
    from nightshift.integrations import langfuse_prompts as prompts

    place = Place.here()
    for line in prompts.pull(prompts.Prompts(_server(place)), place.root):
        print(line)


@app.command()
def diff() -> None:
    """Show how Langfuse's prompts and labels differ from Git's."""
    from nightshift.integrations import langfuse_prompts as prompts

    place = Place.here()
    for line in prompts.diff(prompts.Prompts(_server(place)), place.root):
        print(line)


@app.command()
def experiment(
    version: Annotated[str | None, typer.Argument(help="A version; the one in production unless given")] = None,
) -> None:
    """Send the judged items of a release as an experiment."""
    from nightshift import registry
    from nightshift.errors import UsageError
    from nightshift.integrations import langfuse_experiment

    place = Place.here()
    known = registry.releases(place.root)
    one = next((one for one in known if one.version == version), None) if version else registry.current(place.root)
    if one is None:
        there = ", ".join(of.version for of in known) or "none"
        raise UsageError(f"there is no version {version or 'in production'}", "", f"there are: {there}")
    for line in langfuse_experiment.send(_server(place), langfuse_experiment.read(place.root, one)):
        print(line)


def _server(place: Place) -> Server:
    """The server of params.yaml, with the environment's keys. Raises ParamsError where it names none, AccessDenied."""
    from nightshift import params
    from nightshift.errors import ParamsError
    from nightshift.integrations.langfuse import Server
    from nightshift.tracing import Traces

    file = place.root / params.FILE
    named = params.load(file, Traces).langfuse
    if named is None:
        do = "write `langfuse: {url: https://…, environment: production}` there"
        raise ParamsError("traces.langfuse names no server", str(file), do)
    return Server.of(named.url)
