"""What a stage writes besides its outs, and what it is told: no other clone has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.repo import Repo

from dvc_engine.stage.outcome import Result
from dvc_engine.store import workspace
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]
CARELESS = """\
stages:
  one:
    cmd: echo 1 > declared.txt && mkdir -p tmp && echo 2 > tmp/loose.txt && echo 3 > ignored.txt
    outs: [declared.txt]
  two: {cmd: cat tmp/loose.txt > two.txt, deps: [declared.txt], outs: [two.txt]}
"""


def test_who_reads_an_out_without_saying_so_is_told_whose_it_is(toy: Make) -> None:
    stages = "stages:\n  one: {cmd: echo 1 > one.txt, deps: [seed.txt], outs: [one.txt]}\n"
    made = toy(f"{stages}  two: {{cmd: cat one.txt > two.txt, deps: [seed.txt], outs: [two.txt]}}\n")
    result = made.run("HEAD")["two"]
    assert result.outcome == "failed"
    assert "one.txt is made by one, and is not among these deps: add it" in result.sentence


def test_who_reads_more_of_a_folder_than_it_says_is_told_whose_that_is(toy: Make) -> None:
    stages = "stages:\n  one: {cmd: mkdir models && echo 1 | tee models/a > models/latest, outs: [models]}\n"
    made = toy(f"{stages}  two: {{cmd: cat models/a models/latest > two.txt, deps: [models/a], outs: [two.txt]}}\n")
    result = made.run("HEAD")["two"]
    assert result.outcome == "failed"
    assert "\nof models, which one makes, it has what its deps name: add models/latest, if one" in result.sentence


def test_who_names_tracked_data_that_it_reads_is_told_nothing(toy: Make) -> None:
    made = toy("stages:\n  one: {cmd: 'echo table.csv is empty >&2; exit 3', deps: [table.csv], outs: [one.txt]}\n")
    (made.root / "table.csv").write_text("5")
    with Repo(str(made.root)) as repo:
        repo.add(str(made.root / "table.csv"))
    assert "is made by" not in made.run(made.commit({}))["one"].sentence


def test_what_a_stage_does_not_declare_is_told_and_who_misses_it_is_told_who_wrote_it(toy: Make) -> None:
    made = toy(CARELESS, **{".gitignore": "ignored.txt\n"})
    results = made.run(made.git("rev-parse", "HEAD"))
    assert sorted(results["one"].undeclared) == ["ignored.txt", "tmp/loose.txt"]
    assert results["two"].outcome == "failed"
    said = results["two"].sentence
    assert "No such file or directory" in said
    assert (
        "tmp/loose.txt was written by stage one, which does not declare it: add it to its outs, and to these deps"
        in said
    )


def test_who_misses_it_in_a_night_in_which_the_other_need_not_run_is_told_too(toy: Make) -> None:
    made = toy(CARELESS)
    made.run("HEAD")
    results = made.run(made.commit({}))
    assert (results["one"].outcome, list(results["one"].undeclared)) == ("unchanged", [])
    assert "tmp/loose.txt was written by stage one, which does not declare it" in results["two"].sentence


@pytest.mark.parametrize(("said", "asked"), [("no memory", 0), ("x.csv: No such file or directory", 1)])
def test_who_wrote_what_is_asked_for_a_file_that_is_missed_and_no_answer_hides_no_reason(
    said: str, asked: int, toy: Make
) -> None:
    """Airflow is asked of each stage: 300 requests where there are 300."""
    made = toy(f"stages:\n  one: {{cmd: \"echo '{said}' >&2; exit 3\", outs: [one.txt]}}\n")
    attempt, asks = made.attempt("one", made.night("HEAD"), {}), list[list[str]]()

    def unanswered(stages: list[str]) -> dict[str, Result]:
        asks.append(stages)
        if stages:
            raise RuntimeError("the API server does not answer")
        return {}

    attempt.results = unanswered
    assert attempt.run().sentence.startswith(f"its command ended with 3\n{said} (")
    assert asks == [[], ["one"]][: asked + 1]


def test_of_what_git_has_a_stage_is_told_what_it_changed_and_not_what_it_removed(toy: Make) -> None:
    made = toy("stages:\n  one: {cmd: echo 1 >> seed.txt && rm gone && echo 1 > x, outs: [x]}\n", **{"gone": ""})
    assert made.run("HEAD")["one"].undeclared == ["seed.txt"]


def test_a_stage_that_writes_in_what_it_reads_is_told_and_nobody_else_has_it(toy: Make) -> None:
    stages = "stages:\n  one: {cmd: echo 1 > one, outs: [one]}\n"
    stages += "  three: {cmd: cat one > three, deps: [one], outs: [three]}\n"
    two = "cp -p one two && echo 2 >> two && echo 3 >> one && echo 4 >> seed.txt && touch src/new && echo 5 >> got"
    made = toy(f"{stages}  two: {{cmd: {two}, deps: [one, seed.txt, src, got], outs: [two]}}\n")
    (made.root / "got").write_text("6")
    with Repo(str(made.root)) as repo:
        repo.add(str(made.root / "got"))
    (made.root / "src").mkdir()
    results = made.run(made.commit({"src/main": ""}))
    assert [one.outcome for one in results.values()] == ["ran"] * 3, [one.sentence for one in results.values()]
    assert sorted(results["two"].changed_deps) == ["got", "one", "seed.txt", "src/new"]
    assert not results["two"].undeclared
    (told,) = results["two"].warnings
    assert told.startswith("wrote in what it reads") and told.endswith("\n- got\n- one\n- seed.txt\n- src/new")
    cache = workspace.cache_of(made.root)
    assert {path.read_text() for path in cache.glob("files/md5/??/*")} == {"1\n", "1\n2\n", "6"}


@pytest.mark.parametrize("how", ["ln", "ln -s"])
def test_what_an_out_is_a_link_to_is_left_as_it_is(how: str, toy: Make, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("1")
    (tmp_path / "tool").chmod(0o755)
    made = toy(f"stages:\n  one: {{cmd: '{how} {tmp_path}/tool out', outs: [out]}}\n")
    assert made.run("HEAD")["one"].outcome == "ran"
    said = (tmp_path / "tool").stat()
    assert (said.st_mode & 0o777, said.st_nlink) == (0o755, 1)


@pytest.mark.parametrize(("kind", "said"), [("copy", "copy"), ("hardlink", "hard"), ("symlink", "soft"), ("", "copy")])
def test_a_stage_has_what_it_reads_as_the_project_links_with_its_cache(kind: str, said: str, toy: Make) -> None:
    how = "if [ -L one ]; then echo soft; elif [ `stat -c %h one` -gt 1 ]; then echo hard; else echo copy; fi > two"
    made = toy(
        f"stages:\n  one: {{cmd: echo 1 > one, outs: [one]}}\n  two: {{cmd: '{how}', deps: [one], outs: [two]}}\n"
    )
    if kind:
        with (made.root / ".dvc" / "config").open("a") as config:
            config.write(f"[cache]\n    type = {kind}\n")
    results = made.run(made.commit({}))
    assert [one.outcome for one in results.values()] == ["ran", "ran"], [one.sentence for one in results.values()]
    objects = workspace.cache_of(made.root).glob("files/md5/??/*")
    assert {path.read_text() for path in objects} == {"1\n", f"{said}\n"}
