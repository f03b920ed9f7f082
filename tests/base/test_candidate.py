"""Only plain weights come in, and only those that were pinned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nightshift import commit
from nightshift.base import candidate
from nightshift.errors import ModelUnsafe, NightshiftError, SourceError
from nightshift.sections import Candidate, FolderModel, GgufModel
from nightshift.stage import Work
from tests import models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder as somebody would bring it."""
    made = models.base(tmp_path_factory.mktemp("source") / "model")
    (made / "README.md").write_text("# Small\n\nOpen weights. Training data are not available.\n")
    (made / commit.MANIFEST).unlink()
    return made


def bring(folder: Path, out: Path, pin: str | None = None) -> None:
    sha256 = pin or commit.sha256(folder / "model.safetensors")
    params = Candidate(models={"one": FolderModel(kind="folder", location=str(folder), sha256=sha256)})
    candidate.run("one", out.parent / "lock", out, params, Work("candidate", sources=Path("/")))


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for name in commit.names(folder):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        (to / name).write_bytes((folder / name).read_bytes())
    return to


def test_a_pickle_is_refused(folder: Path, tmp_path: Path) -> None:
    dirty = copy(folder, tmp_path / "dirty")
    (dirty / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelUnsafe, match=r"pytorch_model\.bin can run code"):
        bring(dirty, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_remote_code_is_refused(folder: Path, tmp_path: Path) -> None:
    dirty = copy(folder, tmp_path / "dirty")
    config = json.loads((dirty / "config.json").read_text())
    (dirty / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "x.Model"}}))
    with pytest.raises(ModelUnsafe, match="remote code"):
        bring(dirty, tmp_path / "out")


def test_other_weights_than_those_pinned_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelUnsafe, match=r"params\.yaml pins 0000"):
        bring(folder, tmp_path / "out", "0" * 64)


def test_broken_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    dirty = copy(folder, tmp_path / "dirty")
    (dirty / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelUnsafe, match="cannot be read"):
        bring(dirty, tmp_path / "out")


@pytest.mark.parametrize(
    ("lock", "said"),
    [("httpx==0.0.1\n", "the lock has 0.0.1"), ("", "the lock has None")],
)
def test_another_version_than_the_locks_is_refused(lock: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "lock").write_text(lock)
    params = Candidate(models={"one": GgufModel(kind="gguf", package="httpx", file="x.gguf")})
    with pytest.raises(SourceError, match=said):
        candidate.run("one", tmp_path / "lock", tmp_path / "out", params, Work("candidate"))


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NightshiftError, match="it has small"):
        candidate.run("large", tmp_path, tmp_path / "out", Candidate(models={"small": models.SMALL}), Work("candidate"))


def test_a_folder_comes_in_with_its_evidence(folder: Path, tmp_path: Path) -> None:
    bring(folder, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "facts.json").read_text())
    assert facts["parameters"] > 0
    assert "evidence/README.md" in commit.names(tmp_path / "out")
    commit.check(tmp_path / "out")


def test_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    assert commit.digest(models.base(tmp_path / "a")) == commit.digest(models.base(tmp_path / "b"))


@pytest.mark.long
def test_the_default_base_model_comes_from_its_package(root: Path, tmp_path: Path) -> None:
    from nightshift import params

    said = params.load(root / params.FILE, Candidate)
    for name in ("a", "b"):
        candidate.run("smollm2", root / "requirements.txt", tmp_path / name, said, Work("candidate"))
    assert commit.digest(tmp_path / "a") == commit.digest(tmp_path / "b")
    assert json.loads((tmp_path / "a" / "facts.json").read_text())["parameters"] == 134_515_008
