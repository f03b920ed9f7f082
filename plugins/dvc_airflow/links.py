"""Links on tasks in Airflow's UI: to the commit, and to what changed since the one before.

Airflow writes a link into XCom when its task has ended, and its UI reads it there: no plugin is needed. A DAG whose
repository has no pages has no links.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink

from dvc_engine.store.web import Web


class CommitLink(BaseOperatorLink):
    """To the commit that a task ran, or made."""

    name = "Commit"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page; "" for a task that ended before it had one."""
        return str(operator.pages.get(self.name, ""))


class ChangesLink(BaseOperatorLink):
    """To what changed: for a stage, since the commit of its newest entry; for publish, since the night before."""

    name = "Changes"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The page; "" where there is nothing before."""
        return str(operator.pages.get(self.name, ""))


def of(web: Web) -> list[BaseOperatorLink]:
    """The links of a repository's tasks."""
    found = {CommitLink: web.commit, ChangesLink: web.changes}
    return [link() for link, page in found.items() if page]


def pages(web: Web, before: str | None, commit: str) -> dict[str, str]:
    """Name of a link → page."""
    return {CommitLink.name: web.of(commit), ChangesLink.name: web.between(before, commit)}
