"""A release is found by its version or its digest, and assigned by the number that was agreed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightshift import registry
from nightshift.errors import ReleaseInvalid, RepositoryError
from tests.release.test_release import git, tag

FIRST, SECOND = "a" * 64, "a" * 8 + "b" * 56


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", str(tmp_path))
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    tag(tmp_path, "v0.1.0", FIRST)
    tag(tmp_path, "v0.2.0", SECOND)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "version"), [("v0.2.0", "v0.2.0"), ("0.2.0", "v0.2.0"), (FIRST, "v0.1.0"), (SECOND[:9], "v0.2.0")]
)
def test_a_release_has_a_version_and_a_digest(name: str, version: str, repository: Path) -> None:
    assert registry.find(repository, name).version == version


@pytest.mark.parametrize(
    ("name", "said"),
    [("v0.3.0", "never released"), ("aaaa", "never released"), ("", "never released"), ("a" * 8, "several releases")],
)
def test_what_names_no_one_release_is_refused(name: str, said: str, repository: Path) -> None:
    with pytest.raises(ReleaseInvalid, match=rf"{said}.*`nightshift release list`"):
        registry.find(repository, name)


def test_dates_are_those_of_the_tags(repository: Path) -> None:
    said = git(repository, "for-each-ref", "--format=%(taggerdate:unix)", "refs/tags/nightshift@v0.1.0")
    assert registry.dates(repository)["v0.1.0"] == int(said)
    assert set(registry.dates(repository)) == {"v0.1.0", "v0.2.0"}


def test_an_assignment_that_was_agreed_on_is_refused_once_another_came_first(repository: Path) -> None:
    first, second = registry.releases(repository)
    agreed = registry.upcoming(repository)
    registry.assign(repository, first)
    with pytest.raises(RepositoryError, match="nightshift#prod#1 could not be made"):
        registry.assign(repository, second, number=agreed)
    assert registry.current(repository) == first
    assert registry.assign(repository, second, number=registry.upcoming(repository)).number == 2
    assert registry.assign(repository, first, "staging", 1).number == 1
    assert registry.environments(repository) == ["prod", "staging"]
    assert registry.assigned(repository, FIRST, "staging")
    assert not registry.assigned(repository, SECOND, "staging")
