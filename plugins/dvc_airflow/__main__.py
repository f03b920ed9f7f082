"""What a project is, without Airflow.

    python -m dvc_airflow graph DIR    # {"stages": [...], "edges": [[from, to], ...]}, by DVC's names
    python -m dvc_airflow check DIR    # nothing, where it can be run

Ends with 2 and one sentence where it cannot be read (1 is a traceback's).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from dvc_airflow import check, reading
from dvc_airflow.project import ProjectError


def main(words: list[str]) -> int:
    """Run one command; its exit code."""
    asked = argparse.ArgumentParser("dvc_airflow", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("command", choices=["graph", "check"])
    asked.add_argument("project", type=Path)
    said = asked.parse_args(words)
    try:
        known = reading.read(said.project, reading.kept(said.project))
        if said.command == "check":
            check.refuse(said.project, known)
    except ProjectError as error:
        print(error, file=sys.stderr)
        return 2
    if said.command == "graph":
        edges = [[above, one.name] for one in known.every for above in one.above]
        print(json.dumps({"stages": [one.name for one in known.every], "edges": edges}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
