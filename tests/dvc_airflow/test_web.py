"""Pages of commits, from the address of a remote or as a person gives them; links that tasks have of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dvc_engine.pipeline.project import ProjectError
from dvc_engine.store import web
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]


@pytest.mark.parametrize(
    ("url", "commit", "changes"),
    [
        ("/srv/project.git", "", ""),
        ("file:///srv/project.git", "", ""),
        ("C:/srv/project", "", ""),
        ("https://git.example.org/me/it", "", ""),
        ("git@git.internal:me/it.git", "", ""),
        ("https://github.com/me/it.git", "https://github.com/me/it/commit/C", "https://github.com/me/it/compare/B...C"),
        ("git@github.com:me/it.git", "https://github.com/me/it/commit/C", "https://github.com/me/it/compare/B...C"),
        (
            "https://me:token@gitlab.com/a/b/it.git",
            "https://gitlab.com/a/b/it/-/commit/C",
            "https://gitlab.com/a/b/it/-/compare/B...C",
        ),
        (
            "ssh://git@gitlab.example.org:2222/a/it",
            "https://gitlab.example.org/a/it/-/commit/C",
            "https://gitlab.example.org/a/it/-/compare/B...C",
        ),
        (
            "git@bitbucket.org:me/it.git",
            "https://bitbucket.org/me/it/commits/C",
            "https://bitbucket.org/me/it/branches/compare/C..B",
        ),
        ("https://codeberg.org/me/{it}/", "https://codeberg.org/me/%7Bit%7D/commit/C", None),
    ],
)
def test_what_hosts_a_repository_is_seen_from_its_address(url: str, commit: str, changes: str | None) -> None:
    found = web.hosted(url)
    assert found.of("C") == commit
    if changes is not None:
        assert found.between("B", "C") == changes
    assert (found.of(""), found.between("C", "C"), found.between(None, "C")) == ("", "", "")


@pytest.mark.parametrize(
    "page", ["https://example.org/mine", "https://example.org/{commit}/{commit}", "x/{commit}/{y}"]
)
def test_a_page_that_names_no_commit_is_refused_where_the_dag_is_made(page: str, toy: Make) -> None:
    from dvc_airflow import DvcDag

    with pytest.raises(ProjectError, match="is no page of a commit, like https"):
        DvcDag("toy", toy().root, web=page)


def test_a_page_of_an_unknown_service_tells_no_changes() -> None:
    assert web.pages("https://example.org/show?id={commit}").between("B", "C") == ""


def test_the_address_of_a_remote_has_nothing_that_one_logs_in_with(toy: Make) -> None:
    made = toy()
    made.git("remote", "add", "there", "https://me:token@example.org/it.git")
    for remote in ("there", "https://me:token@example.org/it.git"):
        assert web.address(made.root, remote) == "https://example.org/it.git"
    assert web.address(made.root, "") == ""


def test_a_project_whose_repository_has_no_page_has_no_links(toy: Make, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from airflow.serialization.serialized_objects import DagSerialization

    from dvc_airflow import DvcDag

    made = toy()
    made.git("remote", "add", "there", "git@github.com:me/it.git")

    def linked(**options: Any) -> dict[str, Any]:
        said = DagSerialization.to_dict(DvcDag("toy", made.root, **options))["dag"]["tasks"]
        return {one["__var"]["task_id"]: one["__var"].get("_operator_extra_links") for one in said}

    keys = {"Commit": "_link_CommitLink", "Changes": "_link_ChangesLink"}
    assert set(linked().values()) == {None}
    assert {name: linked(remote="there")[name] for name in ("pin", "total", "publish", "end")} == {
        "pin": keys,
        "total": keys,
        "publish": keys,
        "end": None,
    }
    pin = DvcDag("toy", made.root, remote="there").get_task("pin")
    pin.show("b" * 40, "c" * 40)
    assert {link.name: link.get_link(pin, ti_key=None) for link in pin.operator_extra_links} == {
        "Commit": f"https://github.com/me/it/commit/{'c' * 40}",
        "Changes": f"https://github.com/me/it/compare/{'b' * 40}...{'c' * 40}",
    }
