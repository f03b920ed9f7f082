"""What travels besides DVC's own outs: imports that a night fetches anew, and outs that DVC keeps no object of."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.open_repo import clean_repos

from dvc_engine.night import publish
from dvc_engine.pipeline import lock, reading
from dvc_engine.stage.outcome import Result
from dvc_engine.store import history, objects, uncached, workspace
from dvc_engine.store.commit import Commit
from dvc_engine.store.repository import Repository
from tests.dvc_airflow.conftest import Toy, repository
from tests.served import serving

Make = Callable[..., Toy]
UNCACHED = """\
stages:
  one:
    cmd: mkdir -p kept && cat seed.txt > kept/a && echo 2 > kept/b && echo 3 > table
    deps: [seed.txt]
    outs: [{kept: {cache: false}}, {table: {cache: false}}]
  two: {cmd: cat kept/a kept/b table > x, deps: [kept, table], outs: [x]}
"""
NAMED = """\
stages:
  prep:
    cmd: printf fit > fit && mkdir all && printf a > all/a && printf b > all/b && printf other > other
    outs: [fit, all, other]
  fit: {cmd: cat fit > model, deps: [fit, all/a], outs: [model]}
"""
READS = "stages:\n  read: {cmd: cp got x, deps: [got], outs: [x]}\n"


def record(made: Toy) -> Repository:
    return Repository(made.root, "nightly", "refs/x")


def remote(made: Toy) -> Path:
    folder = made.root.parent / "remote"
    folder.mkdir()
    config = made.root / ".dvc" / "config"
    config.write_text(f"{config.read_text()}[core]\n    remote = r\n['remote \"r\"']\n    url = {folder}\n")
    made.commit({})
    return folder


def test_an_out_with_a_remote_of_its_own_comes_from_there_and_goes_there(toy: Make) -> None:
    made = toy("""\
stages:
  one: {cmd: cat data data > a, deps: [data], outs: [{a: {remote: r}}]}
  two: {cmd: cat a a > b, deps: [a], outs: [b]}
""")
    folder = remote(made)
    (made.root / "data").write_text("tracked")
    with Repo(str(made.root)) as repo:
        repo.add(str(made.root / "data"))
        repo.push()
    for file, old, new in [("data.dvc", "outs:\n- ", "outs:\n- remote: r\n  "), (".dvc/config", "remote = r\n", "\n")]:
        (made.root / file).write_text((made.root / file).read_text().replace(old, new))
    commit, cache = made.commit({}), workspace.cache_of(made.root)
    shutil.rmtree(cache / "files")
    night, results = made.night(commit), dict[str, Result]()
    assert workspace.remote_of(made.root) is None
    for stage in ("one", "two"):
        results[stage] = made.attempt(stage, night, results).run()
        assert results[stage].outcome == "ran", results[stage].sentence
        shutil.rmtree(cache / "files")
    assert len(list(folder.glob("files/md5/*/*"))) == 2  # what `two` made has no remote


def test_outs_without_cache_reach_a_machine_with_another_disk_by_the_remote(toy: Make) -> None:
    made = toy(UNCACHED)
    folder = remote(made)
    first = made.run("HEAD")
    assert {one.outcome for one in first.values()} == {"ran"}, [one.sentence for one in first.values()]
    assert any((folder / uncached.FOLDER).rglob("*.dir"))
    made.came = dict.fromkeys(first, "HEAD")
    shutil.rmtree(workspace.cache_of(made.root))
    assert [one.outcome for one in made.run("HEAD").values()] == ["unchanged", "unchanged"]
    shutil.rmtree(workspace.cache_of(made.root))
    made.commit({"dvc.yaml": UNCACHED.replace("cat kept/a kept/b", "cat kept/b kept/a")})
    again = made.run("HEAD")
    assert {name: one.outcome for name, one in again.items()} == {"one": "unchanged", "two": "ran"}


@pytest.mark.parametrize("dep", ["seed.txt", "src"])
def test_what_dvc_cached_and_does_no_longer_is_not_made_again(dep: str, toy: Make) -> None:
    stages = f"stages:\n  one: {{cmd: cp seed.txt x, deps: [{dep}], outs: [x]}}\n"
    made = toy(stages)
    (made.root / "src").mkdir()
    made.came = dict.fromkeys(made.run(made.commit({"src/lib": ""})), made.git("rev-parse", "HEAD"))
    shutil.rmtree(workspace.cache_of(made.root) / "runs")
    results = made.run(made.commit({"dvc.yaml": stages.replace("[x]", "[{x: {cache: false}}]")}))
    assert results["one"].outcome == "unchanged"
    assert results["one"].files == {"x": "7"}


def test_a_remote_that_is_named_from_the_configuration_is_the_same_in_a_clone(toy: Make) -> None:
    made = toy()
    (made.root.parent / "remote").mkdir()
    with (made.root / ".dvc" / "config").open("a") as config:
        config.write("[core]\n    remote = r\n['remote \"r\"']\n    url = ../../remote\n")
    made.commit({})
    assert made.run("HEAD")["numbers"].outcome == "ran"
    assert any((made.root.parent / "remote" / "files").rglob("*"))


def test_data_that_dvc_2_hashed_is_brought(toy: Make) -> None:
    made = toy(READS)
    old = workspace.cache_of(made.root) / "c4" / "ca4238a0b923820dcc509a6f75849b"
    old.parent.mkdir(parents=True)
    old.write_text("1")
    made.commit({"got.dvc": "outs:\n- md5: c4ca4238a0b923820dcc509a6f75849b\n  size: 1\n  path: got\n"})
    result = made.run("HEAD")["read"]
    assert result.outcome == "ran", result.sentence
    assert not result.warnings


def test_a_stage_of_which_one_out_names_a_remote_and_another_has_none(toy: Make) -> None:
    made = toy(
        "stages:\n  one: {cmd: echo 1 > a && echo 2 > b, outs: [{a: {remote: x}}, b]}\n"
        "  two: {cmd: cat a b > c, deps: [a, b], outs: [c]}\n"
    )
    (made.root.parent / "remote").mkdir()
    (made.root / ".dvc" / "config").write_text(f"['remote \"x\"']\n    url = {made.root.parent}/remote\n")
    results = made.run(made.commit({}))
    assert [one.outcome for one in results.values()] == ["ran", "ran"], [one.sentence for one in results.values()]
    assert [one.read_text() for one in (made.root.parent / "remote").rglob("??/*") if one.is_file()] == ["1\n"]


def test_a_list_that_is_damaged_is_not_taken_in(toy: Make) -> None:
    stages = "stages:\n  one: {cmd: mkdir m && echo 1 > m/a, deps: [seed.txt], outs: [m]}\n"
    made = toy(stages)
    made.came = dict.fromkeys(made.run("HEAD"), made.git("rev-parse", "HEAD"))
    (held,) = workspace.cache_of(made.root).glob("files/md5/*/*.dir")
    held.chmod(0o644)
    held.write_text("[]")
    result = made.run(made.commit({"dvc.yaml": stages.replace("[m]", "[{m: {cache: false}}]")}))["one"]
    assert result.well, result.sentence
    assert list(_files(made, result)) == ["m/a"]


@pytest.mark.parametrize("error", [RuntimeError("why"), ConnectionError("why"), DvcException("why")])
def test_a_remote_that_does_not_answer_is_told_as_such(
    error: Exception, toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = toy()
    remote(made)
    monkeypatch.setattr(uncached, "fetch", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(OSError, match=f"DVC's remote does not answer: {type(error).__name__}: why"):
        uncached.bring(made.root, {"x": "0" * 32}, workspace.cache_of(made.root))


def _files(made: Toy, result: Result) -> dict[str, str]:
    """The files of its outs that DVC does not cache."""
    md5 = lock.hashes(made.known().stages[result.stage], result.entry or {}, "outs")
    held = (uncached.files(path, one, workspace.cache_of(made.root)) for path, one in md5.items())
    return {path: place.read_text() for some in held for path, place in some}


def test_data_that_dvc_2_hashed_is_fetched(toy: Make) -> None:
    made = toy(READS)
    old = remote(made) / "c4" / "ca4238a0b923820dcc509a6f75849b"
    old.parent.mkdir(parents=True)
    old.write_text("1")
    made.commit({"got.dvc": "outs:\n- md5: c4ca4238a0b923820dcc509a6f75849b\n  size: 1\n  path: got\n"})
    result = made.run("HEAD")["read"]
    assert result.outcome == "ran", result.sentence


def test_what_is_called_as_a_stage_is_fetched_and_no_more_than_is_read(toy: Make) -> None:
    made = toy(NAMED)
    remote(made)
    night = made.night("HEAD")
    results = {"prep": made.attempt("prep", night, {}).run()}
    cache = workspace.cache_of(made.root)
    shutil.rmtree(cache)
    results["fit"] = made.attempt("fit", night, results).run()
    assert results["fit"].outcome == "ran", results["fit"].sentence
    held = {path.read_text() for path in cache.glob("files/md5/??/*") if not path.name.endswith(".dir")}
    assert held == {"fit", "a"}


def test_a_remote_that_keeps_versions_of_files(toy: Make, bucket: Any) -> None:
    """Of a folder dvc.lock lists the files then, and DVC keeps no object of the list."""
    bucket.Versioning().enable()
    made = toy(NAMED.replace("deps: [fit, all/a]", "deps: [all/a]").replace("cat fit", "cat all/a"))
    config = made.root / ".dvc" / "config"
    told = f"[core]\n    remote = r\n['remote \"r\"']\n    url = s3://{bucket.name}/data\n    version_aware = true\n"
    config.write_text(f"{config.read_text()}{told}")
    night = made.night(made.commit({}))
    results = {"prep": made.attempt("prep", night, {}).run()}
    assert results["prep"].well, results["prep"].sentence
    folder = next(one for one in (results["prep"].entry or {})["outs"] if one["path"] == "all")
    assert [one["relpath"] for one in folder["files"]] == ["a", "b"]
    assert "md5" not in folder
    cache = workspace.cache_of(made.root)
    shutil.rmtree(cache)
    assert made.attempt("fit", night, results).run().outcome == "ran"
    (held,) = (path for path in cache.glob("files/md5/??/*") if path.read_bytes() == b"a")
    held.chmod(0o644)
    held.write_text("b")
    held.chmod(0o444)
    again = made.attempt("fit", night, results, number=2).run()
    assert again.well, again.sentence
    assert held.read_bytes() == b"a"
    assert (cache / objects.DAMAGED / (held.parent.name + held.name)).read_text() == "b"


def test_outs_without_cache_have_a_limit(toy: Make) -> None:
    made = toy(UNCACHED)
    attempt = made.attempt("one", made.night("HEAD"), {})
    attempt.limit_bytes = 4
    result = attempt.run()
    assert result.outcome == "refused"
    assert "its outs with `cache: false` are 5 bytes, 4 at most are kept; let DVC cache them" in result.sentence


def imported(made: Toy, source: Path) -> None:
    """Import a file as `got`, to be fetched anew each night."""
    with Repo(str(made.root)) as repo:
        repo.imp_url(str(source), str(made.root / "got"))
    text = (made.root / "got.dvc").read_text()
    made.commit({"got.dvc": f"{text}meta:\n  airflow: {{update: true}}\n"})


def test_an_import_is_fetched_anew_and_what_changed_is_published(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy(READS)
    monkeypatch.chdir(made.root)
    source = made.root.parent / "source"
    source.write_text("first")
    imported(made, source)
    before = (made.root / "got.dvc").read_text()

    def night() -> dict[str, str]:
        commit, known = made.git("rev-parse", "HEAD"), reading.read(made.root)
        made.learn(history.newest(record(made), Commit(made.root, commit), known))
        results = made.run(commit)
        assert {path for one in results.values() for path in one.undeclared} == set()
        clones = made.root / ".dvc/tmp/clones"
        publish.publish(made.pinned(commit, record(made)), known, results, record(made), None, {}, clones)
        return {name: one.outcome for name, one in results.items()}

    assert night() == {"got.dvc": "unchanged", "read": "ran"}
    assert night() == {"got.dvc": "unchanged", "read": "unchanged"}
    source.write_text("second")
    assert night() == {"got.dvc": "ran", "read": "ran"}
    assert (made.root / "got.dvc").read_text() == before
    assert made.git("show", "nightly:got.dvc") != before.rstrip("\n")
    assert night() == {"got.dvc": "unchanged", "read": "unchanged"}
    source.unlink()
    commit, known = made.git("rev-parse", "HEAD"), reading.read(made.root)
    made.learn(history.newest(record(made), Commit(made.root, commit), known))
    gone = made.run(commit)["got.dvc"]
    assert gone.outcome == "storage"
    assert str(source) in gone.sentence


def test_an_import_of_another_repository_follows_its_branch(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = toy(READS)
    other = Toy(repository(made.root.parent / "other", {"lib": "one"}))
    other.commit({})
    monkeypatch.chdir(made.root)
    with Repo(str(made.root)) as repo:
        repo.imp(f"file://{other.root}", "lib", out="got")
    text = (made.root / "got.dvc").read_text()
    made.commit({"got.dvc": f"{text}meta:\n  airflow: {{update: true}}\n"})
    made.learn(history.newest(record(made), Commit(made.root, "HEAD"), reading.read(made.root)))
    other.commit({"lib": "two"})
    clean_repos()  # of this process, in which the child is forked
    made.root.with_name("tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(made.root.with_name("tmp")))
    results = made.run("HEAD")
    assert {name: one.outcome for name, one in results.items()} == {"got.dvc": "ran", "read": "ran"}
    assert other.git("rev-parse", "HEAD") in str((results["got.dvc"].entry or {})["text"])
    assert not list(made.root.with_name("tmp").iterdir())


@pytest.mark.parametrize("tracked", [False, True])
def test_an_import_whose_bytes_this_worker_lacks_comes_from_where_it_was_imported(
    tracked: bool, toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dvc fetch` does it, by which nothing goes to a remote: there need be none."""
    made = toy(READS)
    other = Toy(repository(made.root.parent / "other", {"lib": "one"}))
    if tracked:
        with Repo(str(other.root)) as repo:
            repo.add(str(other.root / "lib"))
    other.commit({})
    monkeypatch.chdir(made.root)
    with Repo(str(made.root)) as repo:
        repo.imp(str(other.root), "lib", out="got")
    made.commit({})
    shutil.rmtree(workspace.cache_of(made.root))
    clean_repos()  # of this process, in which the child is forked
    result = made.run("HEAD")["read"]
    assert result.outcome == "ran", result.sentence
    assert (result.entry or {})["outs"][0]["md5"] == objects.md5(b"one")


class Bad(SimpleHTTPRequestHandler):
    """A remote over HTTP that serves a folder, and objects as its `mode` has it."""

    mode = ""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if self.mode == "403":
            self.send_error(403)
            return
        if not self.mode or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        if self.mode == "hangs":
            time.sleep(3)
        if self.mode == "503":
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write({"truncates": content[:-1], "flips": content[:-1] + b"?"}.get(self.mode, content))
        self.close_connection = True

    def do_PUT(self) -> None:
        path = Path(self.translate_path(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            while size := int(self.rfile.readline(), 16):  # it is sent in chunks
                out.write(self.rfile.read(size))
                self.rfile.readline()
        self.send_response(201)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("mode", ["503", "hangs", "truncates", "flips"])
def test_of_a_bad_remote_nothing_reaches_the_cache_nor_a_stage(
    mode: str, toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = toy()
    folder = made.root.parent / "remote"
    folder.mkdir()
    monkeypatch.setattr(Bad, "mode", "")
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(Bad, directory=str(folder)))) as url:
        config = made.root / ".dvc" / "config"
        config.write_text(
            f"{config.read_text()}[core]\n    remote = r\n['remote \"r\"']\n"
            f"    url = {url}\n    method = PUT\n    read_timeout = 1\n"
        )
        night = made.night(made.commit({}))
        results = {"numbers": made.attempt("numbers", night, {}).run()}
        assert results["numbers"].outcome == "ran", results["numbers"].sentence
        assert len([path for path in folder.rglob("*") if path.is_file()]) == 1
        cache = workspace.cache_of(made.root)
        shutil.rmtree(cache)
        monkeypatch.setattr(Bad, "mode", mode)
        bad = made.attempt("total", night, results).run()
        assert bad.outcome == "storage", bad
        assert all(objects.sound(path) for path in cache.glob("files/md5/??/*"))
        monkeypatch.setattr(Bad, "mode", "")
        assert made.attempt("total", night, results, number=2).run().outcome == "ran"


@pytest.mark.parametrize("md5", ["0" * 32, f"{'0' * 32}.dir"])
@pytest.mark.parametrize("mode", ["", "403"])
def test_a_remote_that_is_away_is_not_one_that_lacks_an_object(
    mode: str, md5: str, toy: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 says that it forbids what it lacks, to who may not list what it has."""
    monkeypatch.setattr(Bad, "mode", mode)
    made = toy()
    folder = remote(made)
    uncached.bring(made.root, {"x": md5}, workspace.cache_of(made.root))  # it lacks that, and says so
    config = made.root / ".dvc" / "config"
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), partial(Bad, directory=str(folder)))) as url:
        config.write_text(config.read_text().replace(f"{folder}", url))
        uncached.bring(made.root, {"x": md5}, workspace.cache_of(made.root))
    with pytest.raises(OSError, match="DVC's remote does not answer: ClientConnectorError: Cannot connect"):
        uncached.bring(made.root, {"x": md5}, workspace.cache_of(made.root))
