"""How often a task is tried again, by Airflow and by the engine.

Airflow counts attempts that never began: while its API server does not answer, each ends after some seconds, and two
retries were gone 25 s after a lost worker was noticed (killed for two minutes, Airflow 3.3.2). So Airflow is given
three more, further and further apart. Airflow does not tell which attempts began: so an attempt that fails is the last
once no more than three are left, whatever used up the others.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

RETRIES = 2
OUTAGE = 3  # more of them, for attempts that cannot begin
FIRST, LONGEST = timedelta(seconds=5), timedelta(minutes=1)


def told(retries: int = RETRIES) -> dict[str, Any]:
    """What Airflow is told of a task that is to be tried so often again; over two minutes lie between its attempts."""
    apart = {"retry_delay": FIRST, "retry_exponential_backoff": 2.0, "max_retry_delay": LONGEST}
    return {"retries": retries + OUTAGE, **apart} if retries else {"retries": 0}


def mendable(ti: Any) -> type[AirflowException]:
    """What an attempt ends with that another may mend: Airflow's retry, or for good where those asked for are used."""
    return AirflowException if ti.max_tries - ti.try_number >= OUTAGE else AirflowFailException
