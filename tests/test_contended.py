"""Many who assign at once: each sees what it decided on, or is refused; nobody undoes what it has not seen."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from nightshift import registry, rollouts
from nightshift.errors import ReleaseInvalid, RepositoryError
from nightshift.registry import Release
from tests.release.test_release import git, tag

CLIENTS, OPERATIONS = 5, 40


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "repository"
    made.mkdir()
    git(made, "init", "-q")
    git(made, "commit", "-q", "--allow-empty", "-m", "first")
    for number in range(4):
        tag(made, f"v0.{number + 1}.0", f"{number + 1:x}" * 64)
    registry.assign(made, registry.releases(made)[0])
    registry.assign(made, registry.releases(made)[1])
    return made


@dataclass(frozen=True)
class Done:
    """An operation that succeeded: what was in production when its client decided, and what it put there."""

    kind: str
    saw: Release | None
    made: registry.Assignment


@dataclass
class History:
    """What clients did, and how often they were refused."""

    done: list[Done] = field(default_factory=list)
    refused: int = 0


def client(repository: Path, home: Path, seed: int, history: History) -> None:
    """Promote and go back, each by what was seen just before."""
    drawn = random.Random(seed)
    known = registry.releases(repository)
    for _ in range(OPERATIONS):
        try:
            if drawn.random() < 0.5:
                agreed, saw = registry.upcoming(repository), registry.current(repository)
                wanted = drawn.choice([one for one in known if one != saw])
                made = registry.assign(repository, wanted, number=agreed)
                if made.number == agreed:  # else it was in production by then, which it is
                    history.done.append(Done("promote", saw, made))
            else:
                made = rollouts.back(repository, home, f"client {seed}", "test", 1e9)
                history.done.append(Done("back", None, made))
        except (RepositoryError, ReleaseInvalid):
            history.refused += 1


def test_promotions_and_rollbacks_of_many_clients_are_one_after_the_other(repository: Path, tmp_path: Path) -> None:
    history = History()
    threads = [
        threading.Thread(target=client, args=(repository, tmp_path / "home", seed, history)) for seed in range(CLIENTS)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    register = registry.assignments(repository)
    assert [one.number for one in register] == list(range(1, len(register) + 1))  # none is lost, none stands twice
    assert all(before.release != after.release for before, after in pairwise(register))
    assert history.refused > 0 and len(history.done) > 5  # they were in each other's way, and went on
    by_number = {one.number: one.release for one in register}
    for one in history.done:
        assert by_number[one.made.number] == one.made.release
        if one.kind == "promote":
            assert by_number[one.made.number - 1] == one.saw  # it replaced what its client saw, and nothing else


def test_who_goes_back_does_not_undo_what_came_meanwhile(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third, standing = registry.releases(repository)[2], registry.standing

    def late(*words: object) -> registry.Standing:
        seen = standing(repository)
        registry.assign(repository, third)  # between what was seen and what is done
        return seen

    monkeypatch.setattr(registry, "standing", late)
    with pytest.raises(RepositoryError, match="nightshift#prod#3 could not be made"):
        rollouts.back(repository, tmp_path / "home", "ann", "it errs", 1e9)
    assert registry.current(repository) == third


KILLED = """
import sys
import time
from pathlib import Path
from nightshift import registry
repository = Path(sys.argv[1])
print("up", flush=True)
while True:
    for one in registry.releases(repository):
        registry.assign(repository, one)
"""


def test_a_kill_leaves_the_register_whole(repository: Path) -> None:
    drawn, before = random.Random(7), 0
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(repository)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            until = len(registry.assignments(repository)) + drawn.randrange(1, 4)
            while len(registry.assignments(repository)) < until:
                pass
            child.kill()
        found = registry.assignments(repository)
        assert [one.number for one in found] == list(range(1, len(found) + 1))
        assert len(found) > before
        before = len(found)
    time.sleep(1)  # a Git that the last one had started may still write
    found = registry.assignments(repository)
    last = registry.releases(repository)[0 if found[-1].release.version != "v0.1.0" else 1]
    assert registry.assign(repository, last).number == len(found) + 1  # and the next goes on
