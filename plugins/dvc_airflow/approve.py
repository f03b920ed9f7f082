"""A person decides about what a stage made; apart, since few projects ask one and Airflow's operator imports much."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.operators.hitl import ApprovalOperator

from dvc_airflow.operator import KEPT, LET_OUT, RESULT, SETTLED, refusal
from dvc_engine.stage.outcome import Result


class ApproveOperator(ApprovalOperator):
    """A person decides whether what a stage made is read and published; who does not let it ends the night.

    What it shows are the stage's own words, and no template of Airflow's: `docker ps --format '{{.Names}}'`.

    Args:
        stage: whose; `made_by`, the id of its task, and `pin`, of the night's first.
    """

    template_fields = ()

    def __init__(self, *, stage: str, made_by: str, pin: str, **kwargs: Any) -> None:
        super().__init__(fail_on_reject=True, **kwargs)
        self.stage, self.made_by, self.pin = stage, made_by, pin

    def execute(self, context: Any) -> Any:
        """Ask; of what the branch of nights has already nobody: it was let out then."""
        ti = context["ti"]
        pinned, said = ti.xcom_pull(task_ids=self.pin), ti.xcom_pull(task_ids=self.made_by, key=RESULT) or {}
        settled = ti.xcom_pull(task_ids=self.pin, key=SETTLED) or {"stages": []}
        if made := said or (ti.xcom_pull(task_ids=self.pin, key=KEPT) or {}).get(self.stage):
            ti.xcom_push(key=LET_OUT, value=Result.of(made).made)
        same = self.stage in settled["stages"] or said.get("outcome") == "unchanged"
        if same and self.stage in pinned["let_out"]:
            self.log.info("%s is unchanged, and was let out before", self.stage)
            return None
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Take the answer. Fails for good where it is no."""
        try:
            return super().execute_complete(context=context, event=event)
        except HITLRejectException:
            who = (event.get("responded_by_user") or {}).get("name") or "somebody"
            raise refusal(context, Exception(f"{self.task_display_name} was answered with no by {who}")) from None
