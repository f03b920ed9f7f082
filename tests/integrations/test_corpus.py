"""A release is opened as the endpoint opens it, and searched as the endpoint searches it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nightshift import registry
from nightshift.answer import System
from nightshift.errors import CacheCorrupt, ReleaseInvalid, SourceError, UsageError
from nightshift.integrations import corpus as corpora
from nightshift.integrations.corpus import Corpus
from nightshift.integrations.places import escaped, renamed
from nightshift.retrieve import Filter
from tests.integrations.asked import ASKED
from tests.integrations.release import Checkout


@pytest.fixture
def copy(checkout: Checkout, tmp_path: Path) -> Path:
    """A checkout that a test may spoil."""
    shutil.copytree(checkout.root, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def test_what_is_in_production_is_opened_by_its_digest(checkout: Checkout) -> None:
    made = Corpus.released(checkout.root)
    assert (made.digest, made.version) == (checkout.release.digest, "v0.1.0")
    assert Corpus.released(checkout.root, digest=made.digest).digest == made.digest


@pytest.mark.parametrize("place", ["release", "system"])
def test_a_folder_is_opened_alone(checkout: Checkout, place: str) -> None:
    folder = checkout.folder if place == "release" else checkout.folder / "system"
    made = Corpus.open(folder)
    assert made.version == ""
    assert (made.digest == checkout.release.digest) == (place == "release")
    assert [hit.title for hit in made.search("When is the pump oiled?", 1)] == ["Pump > Maintenance"]


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"digest": "e" * 64}, "no release has the digest eeee"),
        ({"environment": "canary"}, "nothing is in canary"),
    ],
)
def test_a_release_that_is_not_there_is_refused(checkout: Checkout, about: dict[str, str], said: str) -> None:
    with pytest.raises(ReleaseInvalid, match=said):
        Corpus.released(checkout.root, **about)  # type: ignore[arg-type]


def test_an_unsigned_release_is_refused(copy: Path, checkout: Checkout) -> None:
    (copy / "var" / "releases" / checkout.release.digest / "model.sig").unlink()
    with pytest.raises(ReleaseInvalid, match="no signature"):
        Corpus.released(copy)


def test_an_altered_folder_is_refused(copy: Path, checkout: Checkout) -> None:
    folder = copy / ".nightshift" / "releases" / checkout.release.digest
    (folder / "system" / "prompt.yaml").write_text("system: Obey.\n")
    with pytest.raises(CacheCorrupt, match=r"prompt\.yaml differs"):
        Corpus.open(folder)
    with pytest.raises(SourceError, match="not there"):
        Corpus.open(copy / "elsewhere")


def test_a_missing_library_is_a_sentence(copy: Path, checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_dvc(*_: object) -> Path:
        raise ModuleNotFoundError("No module named 'dvc'", name="dvc")

    monkeypatch.setattr(registry, "fetch", without_dvc)
    with pytest.raises(UsageError, match=r"v0\.1\.0: dvc is not installed here; install it, start the endpoint once"):
        Corpus.released(copy)
    monkeypatch.setattr(corpora, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="searches by meaning too, and torch and transformers are not installed"):
        Corpus.open(checkout.folder)


@pytest.mark.parametrize(("question", "k", "only", "groups"), ASKED)
def test_it_finds_what_the_index_finds(
    checkout: Checkout, question: str, k: int | None, only: Filter, groups: tuple[str, ...]
) -> None:
    system = System.open(checkout.folder / "system")
    wanted = system.index.search(question, k or system.settings["sections"], groups, only)
    made = Corpus.open(checkout.folder, groups)
    assert made.search(question, k, only) == wanted
    assert all(made.section(hit.id) for hit in wanted)


def test_groups_are_fixed_and_a_filter_never_widens_them(checkout: Checkout) -> None:
    everyone, board = Corpus.open(checkout.folder), Corpus.open(checkout.folder, ("board",))
    secret = next(hit for hit in board.sections() if hit.path == "board.md")
    assert secret.title not in [hit.title for hit in everyone.search("salaries", 9, Filter(path="board.md"))]
    assert everyone.section(secret.id) is None
    assert len(everyone.sections()) == 4
    assert board.about(secret)["licence"] == "CC0-1.0"
    assert "groups" not in board.about(secret)


def test_a_vector_of_another_width_is_refused(checkout: Checkout) -> None:
    made = Corpus.open(checkout.folder)
    hit = made.search("How deep is the well?", 1)[0]
    vector = made.vector(hit)
    assert vector is not None
    assert made.nearest(vector, 1)[0].id == hit.id
    with pytest.raises(UsageError, match="vectors of 384"):
        made.nearest([1.0])


def test_places_get_other_names_and_braces_stay_text() -> None:
    places = {"question": "{query_str}"}
    text = 'Say {"a": 1} to {question} and {other}'
    assert renamed(text, places) == 'Say {"a": 1} to {query_str} and {other}'
    assert escaped(text, places).format(query_str="me") == 'Say {"a": 1} to me and {other}'
