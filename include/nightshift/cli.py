"""The command `nightshift`: one function a command, each importing what it needs.

An error is one sentence on stderr and its own exit code (errors.py); `--debug` shows the traceback.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from nightshift import port
from nightshift.errors import NightBroke, ParamsError, UsageError, known, tell
from nightshift.place import Place

FIRST_KEY = "first.key"

app = typer.Typer(
    help="The whole life of a language model, every night, from one definition.",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
keys = typer.Typer(help="Keys of the endpoint.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@app.callback()
def debug(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks")] = False) -> None:
    """Options that stand before the command."""
    if debug:
        os.environ["NIGHTSHIFT_DEBUG"] = "1"


@app.command()
def nightly(
    profile: Annotated[str | None, typer.Option(help="Profile of params.yaml for this night")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="An override, section.key=value")] = None,
) -> None:
    """Run a night in Airflow, follow it, and say what came of it."""
    from nightshift import night, params, pipeline

    place = Place.here()
    file = place.root / params.FILE
    conf = _conf(profile, set_ or [])
    params.check(file)
    params.overridden(file, conf.get("profile"), {key: value for key, value in conf.items() if key != "profile"})
    pipeline.check(place.root)
    airflow = place.airflow()
    running = airflow.healthy()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: an Airflow of this night goes too
    started_by_another = "Following the night that somebody else is starting here."
    airflow.start(port.asked("NIGHTSHIFT_AIRFLOW_PORT", 8080), lambda: night.say(started_by_another))
    run = None
    try:
        run = night.begin(airflow, conf)
        night.say(f"{'Night' if run.started else 'Following the night under way,'} {run.id} at {airflow.url}")
        state = night.follow(airflow, run, sys.stdout)
    except NightBroke:
        if run is None or not night.ended(place.state, run.id):
            raise
        state = "success"  # another who followed it saw its end first, and stopped Airflow
    except KeyboardInterrupt:
        goes_on = "The night goes on; `make nightly` follows it again."
        stops = "Airflow is being stopped, and the night with it; `make nightly` goes on with it."
        print(f"\n{goes_on if running or airflow.stays else stops}", file=sys.stderr, flush=True)
        raise
    finally:
        if not running:
            airflow.leave()
    ended = night.of(place.state, run.id)
    if state != "success":
        raise night.broken(ended)
    night.say("\n" + night.told(place.state, ended))


@app.command()
def up() -> None:
    """Start Airflow and the endpoint, and leave them running."""
    place = Place.here()
    airflow, endpoint = place.airflow(), place.endpoint()
    of_airflow, own = port.asked("NIGHTSHIFT_AIRFLOW_PORT", 8080), port.asked("NIGHTSHIFT_PORT", 8000)
    endpoint.free(own)
    stayed = airflow.stays
    running = airflow.healthy()
    airflow.start(of_airflow, stay=True)
    try:
        endpoint.start(own)
    except BaseException:  # both are left running, or neither: an Airflow that a night started is still the night's
        if not running:
            airflow.stop()
        else:
            airflow.stay(stayed)
        raise
    first = _first_key(place)
    print(f"airflow: {airflow.url}")
    print(f"endpoint: {endpoint.url}")
    print(f"admin: {endpoint.admin}")
    print(f"key: {first}", flush=True)
    print(f"Airflow's user is admin, its password in {airflow.passwords}.", file=sys.stderr)
    if why := endpoint.settled():
        print(f"The endpoint does not answer yet: {why}.", file=sys.stderr)


@app.command()
def down() -> None:
    """Stop what `up` started."""
    from nightshift import night

    place = Place.here()
    airflow = place.airflow()
    place.endpoint().stop()
    if run := night.under_way(airflow):
        print(f"The night {run} stops with Airflow; `make nightly` goes on with it.", file=sys.stderr)
    airflow.stop()


@app.command()
def serve(
    port_: Annotated[int, typer.Option("--port", min=1, max=65_534, help="Port; the admin listens on the next")] = 8000,
) -> None:
    """Serve the release in production, until stopped."""
    from nightshift import params
    from nightshift.sections import Compute
    from nightshift.serve.server import serve as run

    place = Place.here()
    run(place.root, place.home, place.state, port_, params.load(place.root / params.FILE, Compute).threads)


@app.command(name="night")
def show(as_json: Annotated[bool, typer.Option("--json", help="night.json itself")] = False) -> None:
    """Show the last night."""
    from nightshift import night

    state = Place.here().state
    found = night.last(state)
    print(json.dumps(found, indent=2) if as_json else night.told(state, found))


@app.command()
def check() -> None:
    """Check the whole of params.yaml, and that dvc.yaml can be run."""
    from nightshift import params, pipeline

    root = Place.here().root
    params.check(root / params.FILE)
    pipeline.check(root)


@app.command()
def profile(name: Annotated[str, typer.Argument(help="laptop, tiny or gpu")]) -> None:
    """Write a profile's values into the sections of params.yaml."""
    from nightshift import params

    params.apply(Place.here().root / params.FILE, name)


@app.command()
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


@app.command()
def pull() -> None:
    """Bring the last night's dvc.lock and metrics into this tree, and its outs from the cache."""
    from nightshift import night

    night.pull(Place.here().root)


@app.command()
def approve(
    reason: Annotated[str, typer.Option(help="Why it may be let out; kept in the audit")],
) -> None:
    """Release and deploy the last night's winner when its verdict is INCONCLUSIVE."""
    import getpass

    from nightshift import night
    from nightshift.release.approve import approve as let_out

    place = Place.here()
    made = let_out(place.root, place.home, place.state, night.BRANCH, getpass.getuser(), reason, time.time())
    night.approved(place.root, place.state, made)
    print(f"{made.release.version} ({made.release.digest[:12]}) is in {made.environment}.")


@keys.command()
def create(
    owner: Annotated[str, typer.Option(help="Who it is for")] = "unnamed",
    scope: Annotated[list[str] | None, typer.Option(help="What it may do; infer:chat unless given")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Whose documents it may see; public unless given")] = None,
    days: Annotated[int, typer.Option(help="How long it is valid, 1 to 90")] = 90,
) -> None:
    """Make a key and print it, once."""
    print(_create(Place.here(), owner, tuple(scope or ["infer:chat"]), tuple(group or ["public"]), days))


@keys.command(name="list")
def listed() -> None:
    """Show every key: id, owner, scopes, groups, and whether it is valid."""
    from nightshift.serve.keys import Keys

    now = time.time()
    for key in Keys(Place.here().home).listed():
        state = "revoked" if key.revoked else "expired" if key.expires <= now else "valid"
        print(f"{key.id}  {state:<8} {key.owner}  {','.join(key.scopes)}  {','.join(key.groups)}")


@keys.command()
def revoke(identifier: Annotated[str, typer.Argument(help="Its id, as `keys list` shows it")]) -> None:
    """End a key at once."""
    from nightshift.serve.keys import Keys

    Keys(Place.here().home).revoke(identifier, time.time())


def main() -> None:
    """Run a command; exits with the code of its error."""
    try:
        sys.exit(app(standalone_mode=False))
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # has no public name
            print(error.format_message())  # the help, where rich has not printed it already
            sys.exit(UsageError.code)
        what = error.format_message().rstrip(".")
        sys.exit(tell("nightshift", UsageError(what, "", "`nightshift --help` shows what there is")))
    except Exception as error:
        found = known(error)
        if found is None:  # a bug of ours: its traceback is what helps
            raise
        sys.exit(tell("nightshift", found))


def _first_key(place: Place) -> Path:
    """The file of a key that is valid; a new one where there is none, or it ran out or was revoked."""
    from nightshift import commit
    from nightshift.serve.keys import Keys

    first = place.home / FIRST_KEY
    kept = first.read_text(encoding="utf-8", errors="replace").strip() if first.is_file() else ""
    if Keys(place.home).check(kept, time.time()) is None:
        commit.file(first, _create(place, "first", ("infer:chat",), ("public",), 90) + "\n", 0o600)
    return first


def _create(place: Place, owner: str, scopes: tuple[str, ...], groups: tuple[str, ...], days: int) -> str:
    from nightshift.serve.keys import Keys

    place.home.mkdir(parents=True, exist_ok=True)
    place.home.chmod(0o700)
    return Keys(place.home).create(owner, scopes, groups, days, time.time())


def _conf(profile: str | None, overrides: list[str]) -> dict[str, Any]:
    """The run's conf: only what was asked for. Raises ParamsError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    typed: dict[str, Any] = {"profile": profile} if profile else {}
    for one in overrides:
        name, sign, value = one.partition("=")
        if not sign:
            raise ParamsError(f"{one!r} is not section.key=value", "--set", "write it as --set adapt.lora.lr=1e-3")
        try:
            typed[name] = YAML(typ="safe").load(value)
        except YAMLError:
            raise ParamsError(f"{value!r} is not YAML", f"--set {name}", "quote it as YAML asks for") from None
    return typed


if __name__ == "__main__":
    main()
