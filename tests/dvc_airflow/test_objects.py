"""What the cache lacks or holds damaged never passes for an input, and the next night makes it anew."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dvc_engine.pipeline import lock, reading
from dvc_engine.stage.attempt import Attempt
from dvc_engine.stage.outcome import Night, Result
from dvc_engine.store import objects
from tests.dvc_airflow.conftest import Toy

Make = Callable[..., Toy]

DVC_YAML = """\
stages:
  make:
    cmd: mkdir d && echo one > d/a && echo two > d/b && echo seed > file.txt
    deps: [seed.txt]
    outs: [d, file.txt]
  read:
    cmd: grep -q one d/a && grep -q seed file.txt && cat d/a d/b > out.txt
    deps: [d, file.txt]
    outs: [out.txt]
"""


def flip(held: Path) -> None:
    """Change a byte, and leave the object as DVC left it: read-only."""
    content = bytearray(held.read_bytes())
    content[0] ^= 1
    held.chmod(0o644)
    held.write_bytes(content)
    held.chmod(0o444)


def held(made: Toy, result: Result, what: str) -> Path:
    """The object of an out, or of a file in one."""
    out, _, member = what.partition("/")
    top = objects.place(
        made.root / ".dvc/cache", lock.objects(reading.read(made.root).stages[result.stage], result.entry or {})[out]
    )
    if not member:
        return top
    return objects.place(made.root / ".dvc/cache", objects.listed(top)[["a", "b"].index(member)])


@pytest.mark.parametrize(
    ("what", "harm", "said"),
    [
        ("d/a", flip, "d: its object {} was damaged, and is put aside as {}"),
        ("d", flip, "d: its object {} was damaged, and is put aside as {}"),
        ("file.txt", flip, "file.txt: its object {} was damaged, and is put aside as {}"),
        ("d/b", Path.unlink, "d: its object {} is missing from the cache"),
    ],
)
def test_a_stage_is_refused_by_name_and_the_next_night_mends_it(
    what: str, harm: Callable[[Path], None], said: str, toy: Make
) -> None:
    made = toy(DVC_YAML)
    commit = made.git("rev-parse", "HEAD")
    night = made.night(commit)
    results = {"make": made.attempt("make", night, {}).run()}
    place = held(made, results["make"], what)
    whole = place.read_bytes()
    harm(place)
    refused = made.attempt("read", night, results).run()
    assert refused.outcome == "refused"
    aside = made.root / ".dvc/cache" / objects.DAMAGED / (place.parent.name + place.name)
    do = "`dvc push` it where somebody has it; else the next night makes it anew"
    assert refused.sentence.startswith(f"{said.format(place, aside)}; {do}")
    assert aside.is_file() == (harm is flip)
    assert "\n" not in refused.sentence
    assert not place.exists()
    made.entries, made.came = {"make": results["make"].entry}, {"make": commit}
    assert {name: one.outcome for name, one in made.run(commit).items()} == {"make": "ran", "read": "ran"}
    assert place.read_bytes() == whole


def test_a_damaged_list_of_what_it_made_last_is_made_anew(toy: Make) -> None:
    """DVC does not write over one that lies there."""
    made = toy(DVC_YAML)
    result = made.attempt("make", made.night("HEAD"), {}).run()
    made.entries, place = {"make": result.entry}, held(made, result, "d")
    flip(place)
    again = made.attempt("make", made.night(made.commit({"seed.txt": "8"})), {}).run()
    assert again.outcome == "ran", again.sentence
    assert objects.sound(place)


def stored(made: Toy, store: Path | str) -> Night:
    """A night of a project with a remote."""
    config = (made.root / ".dvc" / "config").read_text()
    (made.root / ".dvc" / "config").write_text(
        f"{config}[core]\n    remote = store\n['remote \"store\"']\n    url = {store}\n"
    )
    return made.night(made.commit({}))


def flipped(made: Toy, store: Path) -> tuple[Attempt, Path]:
    """An attempt at a stage that reads what is damaged here, and was taken to the remote before; and which object."""
    night = stored(made, store)
    results = {"make": made.attempt("make", night, {}).run()}
    place = held(made, results["make"], "d/a")
    flip(place)
    return made.attempt("read", night, results), place


def test_with_a_remote_it_is_fetched_anew_and_its_people_are_told(toy: Make, tmp_path: Path) -> None:
    made = toy(DVC_YAML)
    attempt, place = flipped(made, tmp_path / "store")
    read = attempt.run()
    assert read.outcome == "ran"
    (told,) = read.warnings
    aside = made.root / ".dvc/cache" / objects.DAMAGED / (place.parent.name + place.name)
    said = f"its object {place} was damaged, and is put aside as {aside}, and fetched anew"
    assert told == f"reads what was damaged on this worker; look at its disk:\n- d: {said}"


def test_where_the_remotes_is_damaged_too_what_was_put_aside_is_named(toy: Make, tmp_path: Path) -> None:
    made = toy(DVC_YAML)
    attempt, place = flipped(made, tmp_path / "store")
    flip(tmp_path / "store" / place.relative_to(made.root / ".dvc/cache"))
    refused = attempt.run()
    assert (refused.outcome, "was damaged, and is put aside as" in refused.sentence) == ("storage", True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[str]:
    """The address of what can be read and not written."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_remote_that_takes_nothing_is_named_with_its_reason_and_need_not_be_pushed_to(
    toy: Make, read_only: str
) -> None:
    made = toy(DVC_YAML)
    night = stored(made, read_only)
    refused = made.attempt("make", night, {}).run()
    assert refused.outcome == "storage"
    assert re.search(r"files failed to upload: .*501, message=.Unsupported method.*push=False", refused.sentence)
    attempt = made.attempt("make", night, {})
    attempt.push = False
    assert attempt.run().outcome == "cached"


SPOILS = "read:\n    cmd: cat d/a d/b > out.txt"


def test_a_flipped_byte_is_found_before_a_stage_that_would_not_mind_reads_it(toy: Make) -> None:
    made = toy(
        DVC_YAML.replace("read:\n    cmd: grep -q one d/a && grep -q seed file.txt && cat d/a d/b > out.txt", SPOILS)
    )
    night = made.night("HEAD")
    results = {"make": made.attempt("make", night, {}).run()}
    flip(held(made, results["make"], "d/b"))
    refused = made.attempt("read", night, results).run()
    assert (refused.outcome, "was damaged" in refused.sentence) == ("refused", True)


def test_a_stage_that_fails_by_itself_is_not_laid_to_the_cache(toy: Make) -> None:
    made = toy(DVC_YAML.replace("grep -q seed file.txt", "grep -q other file.txt"))
    night = made.night("HEAD")
    results = {"make": made.attempt("make", night, {}).run()}
    assert made.attempt("read", night, results).run().sentence.startswith("its command ended with 1")


def test_a_folder_for_clones_that_cannot_be_written_is_said(toy: Make) -> None:
    made = toy()
    (made.root / "file").write_text("")
    attempt = made.attempt("numbers", made.night("HEAD"), {})
    there = Attempt(attempt.night, attempt.project, "numbers", lambda stages: {}, made.root / "file" / "clones", {})
    result = there.run()
    assert result.outcome == "storage"
    assert re.fullmatch(r"/.*/file/clones/.*: Not a directory", result.sentence)
