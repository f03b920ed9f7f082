"""The night, from dvc.yaml: pin, every stage, publish, and what follows a release."""

import os
from pathlib import Path

from dvc_airflow.render import DvcDag

ROOT = Path(__file__).resolve().parent.parent
HOME = {
    name: os.environ.get(name, str(ROOT / place))
    for name, place in [("NIGHTSHIFT_STATE", ".nightshift"), ("NIGHTSHIFT_HOME", "var"), ("NIGHTSHIFT_SOURCES", "")]
}

nightly = DvcDag(
    "nightly",
    ROOT,
    schedule=None,
    branch="nightly",
    refs="refs/nightshift",
    env={**HOME, "PYTHONPATH": "{clone}/include"},
    record=Path(HOME["NIGHTSHIFT_STATE"]) / "runs",
)
