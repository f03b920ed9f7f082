"""What a project is, and what of its cache may go, without Airflow.

    python -m dvc_airflow graph DIR    # {"stages": [...], "edges": [[from, to], ...]}, by DVC's names
    python -m dvc_airflow check DIR    # nothing, where it can be run as it lies there
    python -m dvc_airflow gc DIR --nights 30 [--bytes N] [--dry-run]    # bytes by reason

Ends with 2 and one sentence where it cannot (1 is a traceback's).
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from pathlib import Path

from dvc_engine.git import GitError, top
from dvc_engine.pipeline import check, kept, reading
from dvc_engine.pipeline.meta import size
from dvc_engine.pipeline.project import Project, ProjectError
from dvc_engine.stage import start
from dvc_engine.stage.outcome import of_disk
from dvc_engine.store import gc, lease, snapshot, workspace
from dvc_engine.store.commit import Commit
from dvc_engine.store.repository import of


def main(words: list[str]) -> int:
    """Run one command; its exit code."""
    said = _parser().parse_args(words)
    said.project = said.project.absolute()  # it is named in sentences
    try:
        if said.command == "gc":
            return _gc(said)
        known = reading.read(said.project, kept.folder(said.project))
        if said.command == "check":
            check.refuse(said.project, known)
            if not said.pipeline:
                _refuse_tree(said, known)
    except (ProjectError, GitError, lease.Held, snapshot.Refused) as error:
        print(error, file=sys.stderr)
        return 2
    except RecursionError:
        print(f"{said.project}: DVC cannot read it, it is nested too deeply; take some of that out", file=sys.stderr)
        return 2
    except OSError as error:
        print(of_disk(error), file=sys.stderr)
        return 2
    if said.command == "graph":
        edges = [[above, one.name] for one in known.every for above in one.above]
        print(json.dumps({"stages": [one.name for one in known.every], "edges": edges}))
    return 0


def _refuse_tree(said: argparse.Namespace, known: Project) -> None:
    """Raises Refused for what a pin of the work tree would refuse; what a remote has to say is the pin's alone."""
    repository, folder = top(said.project)
    tree = Commit(repository, snapshot.of_tree(said.project, known), folder)
    start.known(known, tree, of(said.project, said.branch, said.refs))


def _gc(said: argparse.Namespace) -> int:
    """Under the lease, so that no night is under way, nor begins."""
    reading.refuse_nothing(said.project)
    record, host = of(said.project, said.branch, said.refs, said.remote), socket.gethostname()
    who = f"{host} {os.getpid()}"
    gc.refuse_beside(record)
    lease.take(record, "gc", host, time.time(), owner=who)
    try:
        with lease.renewed(record, "gc", host, owner=who):
            record.fetch()
            sweep = gc.look(said.project, record, said.nights, said.bytes)
            if not record.tip:
                what = f"no night has been published on {record.branch}, so what is kept of it cannot be told"
                raise ProjectError(f"{said.project}: {what}; name the branch, refs and remote that the DAG has")
            if not said.dry_run:
                sweep.remove()
                workspace.sweep(said.project / ".dvc" / "tmp" / "clones")
    finally:
        lease.release(record, "gc", who)
    print(sweep.text())
    return 0


def _bytes(said: str) -> int:
    try:
        return int(size(said))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(said: str) -> int:
    if not said.isdecimal():
        raise argparse.ArgumentTypeError(f"{said} is no number, from 0 on")
    return int(said)


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("dvc_airflow", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = made.add_subparsers(dest="command", required=True)
    commands.add_parser("graph").add_argument("project", type=Path)
    asked = commands.add_parser("check")
    asked.add_argument("project", type=Path)
    asked.add_argument("--pipeline", action="store_true", help="look at what a DAG is made of, and not at the data")
    swept = commands.add_parser("gc")
    swept.add_argument("project", type=Path)
    swept.add_argument("--nights", type=_count, required=True, help="that are kept of the branch")
    swept.add_argument("--bytes", type=_bytes, help="that all which is kept may take; older nights go until it is so")
    swept.add_argument("--dry-run", action="store_true", help="print, and remove nothing")
    for one in (asked, swept):
        one.add_argument("--branch", help="of nights, as the DAG has it")
        one.add_argument("--refs", help="as the DAG has them")
    swept.add_argument("--remote", default="", help="as the DAG has it")
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
