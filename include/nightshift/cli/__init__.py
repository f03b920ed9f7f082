"""The command `nightshift`: one function a command, each importing what it needs.

An error is one sentence on stderr and its own exit code (errors.py); `--debug` shows the traceback.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from nightshift.cli import (
    asking,
    audit,
    deployment,
    endpoint,
    keys,
    langfuse,
    nights,
    releases,
    slo,
    traces,
    values,
    watch,
)
from nightshift.errors import UsageError, known, tell

app = typer.Typer(
    help="The whole life of a language model, every night, from one definition.",
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)
app.command()(nights.nightly)
app.command()(endpoint.up)
app.command()(endpoint.down)
app.command()(endpoint.serve)
app.command()(endpoint.rollback)
app.command(name="night")(nights.show)
app.command()(values.check)
app.command()(values.profile)
app.command()(values.side)
app.command()(nights.pull)
app.command()(nights.approve)
app.command()(traces.trace)
app.command()(traces.replay)
app.command()(asking.ask)
app.command()(releases.promote)
app.command()(deployment.pattern)
app.command()(deployment.plan)
app.command()(deployment.certify)
app.add_typer(releases.app, name="release")
app.command()(watch.report)
app.command()(watch.watch)
app.command()(watch.notify)
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")
app.add_typer(langfuse.app, name="langfuse")
app.add_typer(slo.app, name="slo")


@app.callback()
def debug(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks")] = False) -> None:
    """Options that stand before the command."""
    if debug:
        os.environ["NIGHTSHIFT_DEBUG"] = "1"


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
