"""The command `nightshift`: one function a command, each importing what it needs.

An error is one sentence on stderr and its own exit code (errors.py); `--debug` shows the traceback.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nightshift.errors import NightshiftError, RepositoryError

app = typer.Typer(
    help="The whole life of a language model, every night, from one definition.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


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
    from nightshift import night, params

    root = project()
    params.check(root / params.FILE)
    airflow = local()
    running = airflow.healthy()
    airflow.start(_port())
    try:
        run = night.begin(airflow, _conf(profile, set_ or []))
        night.say(f"{'Night' if run.started else 'Following the night under way,'} {run.id} at {airflow.url}")
        state = night.follow(airflow, run, sys.stdout)
    finally:
        if not running:
            airflow.stop()
    ended = night.of(_state(root), run.id)
    if state != "success":
        raise night.broken(ended)
    night.say("\n" + night.summary(root, ended))


@app.command()
def up() -> None:
    """Start Airflow and leave it running."""
    airflow = local()
    airflow.start(_port())
    print(f"airflow: {airflow.url}")
    print(f"key: {airflow.home / 'passwords.json'}")


@app.command()
def down() -> None:
    """Stop what `up` started."""
    local().stop()


@app.command(name="night")
def show(as_json: Annotated[bool, typer.Option("--json", help="night.json itself")] = False) -> None:
    """Show the last night."""
    from nightshift import night

    root = project()
    found = night.last(_state(root))
    print(json.dumps(found, indent=2) if as_json else night.summary(root, found))


@app.command()
def check() -> None:
    """Check the whole of params.yaml."""
    from nightshift import params

    params.check(project() / params.FILE)


@app.command()
def profile(name: Annotated[str, typer.Argument(help="laptop, tiny or gpu")]) -> None:
    """Write a profile's values into the sections of params.yaml."""
    from nightshift import params

    params.apply(project() / params.FILE, name)


def project() -> Path:
    """The checkout that one stands in. Raises RepositoryError."""
    asked = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False)
    root = Path(asked.stdout.strip())
    if asked.returncode != 0:
        raise RepositoryError("this is not a Git repository", str(Path.cwd()), "go into the project's folder")
    if not (root / "dvc.yaml").is_file():
        raise RepositoryError("there is no dvc.yaml", str(root), "go into the project's folder")
    return root


def local() -> Any:
    """The project's own Airflow."""
    from nightshift.airflow import Airflow

    environ = dict(os.environ)
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    return Airflow(project(), environ)


def main() -> None:
    """Run a command; exits with the code of its error."""
    try:
        app()
    except NightshiftError as error:
        if os.environ.get("NIGHTSHIFT_DEBUG"):
            raise
        print(f"nightshift: {error}", file=sys.stderr)
        sys.exit(error.code)


def _conf(profile: str | None, overrides: list[str]) -> dict[str, Any]:
    """The run's conf: only what was asked for."""
    from ruamel.yaml import YAML

    values = dict(one.split("=", 1) for one in overrides)
    typed = {key: YAML(typ="safe").load(value) for key, value in values.items()}
    return ({"profile": profile} if profile else {}) | typed


def _state(root: Path) -> Path:
    return Path(os.environ.get("NIGHTSHIFT_STATE") or root / ".nightshift")


def _port() -> int:
    return int(os.environ.get("NIGHTSHIFT_AIRFLOW_PORT", "8080"))


if __name__ == "__main__":
    main()
