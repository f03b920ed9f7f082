"""A person decides about what a stage made; apart, since few projects ask one and Airflow's operator imports much."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException
from airflow.providers.standard.operators.hitl import ApprovalOperator

from dvc_airflow.operator import refusal


class ApproveOperator(ApprovalOperator):
    """A person decides whether what a stage made is read and published; who does not let it ends the night.

    What it shows are the stage's own words, and no template of Airflow's: `docker ps --format '{{.Names}}'`.
    """

    template_fields = ()

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(fail_on_reject=True, **kwargs)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        """Take the answer. Fails for good where it is no."""
        try:
            return super().execute_complete(context=context, event=event)
        except HITLRejectException:
            who = (event.get("responded_by_user") or {}).get("name") or "somebody"
            raise refusal(context, Exception(f"{self.task_display_name} was answered with no by {who}")) from None
