"""The tasks of a night against an Airflow that is not there: what they ask of it, and what they leave in night.json."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dvc_airflow import lease
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]
RUN = "manual__2026-01-01T00:00:00+00:00_x"
REFS = "refs/dvc-airflow"


@dataclass
class Task:
    """What a task sees of Airflow."""

    said: dict[tuple[str, str], Any] = field(default_factory=dict)  # task, key → XCom
    states: dict[str, str] = field(default_factory=dict)  # of this run's tasks
    runs: dict[str, str] = field(default_factory=dict)
    own: str = "task"

    def xcom_pull(self, task_ids: str, key: str = "return_value") -> Any:
        return self.said.get((task_ids, key))

    def xcom_push(self, key: str, value: Any) -> None:
        self.said[self.own, key] = value

    def get_dagrun_state(self, dag_id: str, run_id: str) -> str:
        return self.runs[run_id] if run_id in self.runs else self._nothing()

    def get_task_states(self, dag_id: str, run_ids: list[str]) -> dict[str, Any]:
        return dict.fromkeys(run_ids, self.states) if self.states else self._nothing()

    def get_dag(self, dag_id: str) -> Any:
        return type("Dag", (), {"tags": ["dvc-other"]})

    def _nothing(self) -> Any:
        from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
        from airflow.sdk.execution_time.comms import ErrorResponse

        raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": 404}))


@pytest.fixture
def dag(toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Toy, Any]:
    """A toy project, and its DAG with a deploy."""
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from dvc_airflow.render import DvcDag

    made = toy()
    return made, DvcDag("toy", made.root, after={"deploy": "python deploy.py"}, headline={"total": "total.total"})


@pytest.mark.parametrize(
    ("state", "taken"), [("success", True), ("failed", True), ("running", False), ("queued", False), (None, False)]
)
def test_the_lease_of_a_run_that_has_ended_is_taken_over(state: str | None, taken: bool, dag: Any) -> None:
    made, of = dag
    lease.take(made.root, REFS, "scheduled__2026-01-01T00:00:00+00:00", "elsewhere", time.time())
    ti = Task(runs={"scheduled__2026-01-01T00:00:00+00:00": state} if state else {})
    context = {"ti": ti, "run_id": RUN}
    if taken:
        of.get_task("pin")._lease(context)
    else:
        with pytest.raises(lease.Held):
            of.get_task("pin")._lease(context)
    held = lease.read(made.root, REFS)
    assert held is not None
    assert held.run == (RUN if taken else "scheduled__2026-01-01T00:00:00+00:00")
