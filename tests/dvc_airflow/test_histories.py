"""Many nights of one project whose people change, take back, branch, merge, run by hand, break and mend, by a seed.

Whatever came before, a night publishes what the files of its commit make, and says `unchanged` of nothing else than
what the newest night said. A model tells what that is: each stage copies what it reads.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import time

import pytest

from dvc_engine.git import GitError
from dvc_engine.pipeline import lock
from dvc_engine.store import gc, objects
from tests.dvc_airflow.conftest import Toy
from tests.dvc_airflow.test_history import by_hand, known, newest, night, outcomes, record

Make = Callable[..., Toy]
NIGHTS = 8
STAGES = """\
stages:
  made: {cmd: cat seed.txt > made, deps: [seed.txt], outs: [made]}
  both: {cmd: cat made params.yaml > both, deps: [made], params: [total.by], outs: [{both: {cache: false}}]}
  last: {cmd: test -e good && cat both src/* > last, deps: [both, src], outs: [last]}
"""
ORDER = ["made", "both", "last"]
FIRST = {"seed.txt": "7", "params.yaml": "total: {by: 1}\n", "src/a": "a", "good": ""}
VALUES = {"seed.txt": "789", "src/a": "abc", "params.yaml": [f"total: {{by: {by}}}\n" for by in (1, 2, 3)]}


@dataclass
class History:
    """A project, what its files say, and every commit so far with what they said then."""

    made: Toy
    draw: random.Random
    said: dict[str, str]
    commits: list[tuple[str, dict[str, str]]]
    swept: bool = False

    def change(self) -> None:
        """A file says something else, maybe what it said before."""
        path = self.draw.choice(list(VALUES))
        self._say({**self.said, path: self.draw.choice(VALUES[path])})

    def take_back(self) -> None:
        """All files say what they said at an earlier commit."""
        self._say(self.draw.choice(self.commits)[1])

    def go_back(self) -> None:
        """Another branch begins at an earlier commit."""
        commit, self.said = self.draw.choice(self.commits)
        self.made.git("checkout", "-q", "-B", f"from-{commit[:7]}", commit)
        self.made.git("clean", "-fdq")  # what was made by hand, and is ignored there

    def merge(self) -> None:
        """People take over what the nights made, or find that they changed the same."""
        with_ours = self.draw.choice([[], ["--squash"]])
        try:
            self.made.git("merge", "-q", *with_ours, "nights")
        except GitError:
            self.made.git("reset", "-q", "--hard")
        self.said = {path: (self.made.root / path).read_text() for path in self.said}

    def run_by_hand(self) -> None:
        """Somebody runs it, and commits that."""
        self.change()
        by_hand(self.made)

    def fail(self) -> None:
        """The last stage fails in a night, and is mended."""
        self.change()
        (self.made.root / "good").unlink()
        self.made.commit({})
        results = night(self.made)
        assert outcomes(results)["last"] in ("failed", "cached", "unchanged"), results["last"].sentence
        self._say({**self.said, "good": ""})

    def some(self) -> None:
        """A night of some stages: what the others made is the newest that is of the same, where that can be told."""
        self.draw.choice([self.change, self.take_back, self.go_back])()
        self.made.commit({})
        self.made.select = self.draw.sample(ORDER, self.draw.choice([1, 2]))
        found = known(self.made)
        results = night(self.made)
        lost = {one.sentence for one in results.values() if not one.well}
        assert not lost or self.swept, lost
        tonight = dict[str, str]()
        for name in (one for one in ORDER if results[one].entry):
            entry = results[name].entry or {}
            assert name not in self.made.select or self._of(entry, tonight), name
            others = [one for one, _ in found[name]]
            same = [one for one in others if self._of(one, tonight)]
            if name not in self.made.select and not set(ORDER[: ORDER.index(name)]) & set(self.made.select):
                assert entry == [*same, *others][0], name
            tonight |= {out["path"]: out["md5"] for out in entry["outs"]}
        self.made.select = []

    def _of(self, entry: lock.Entry, tonight: Mapping[str, str]) -> bool:
        """Whether an entry is of what the files say, and of what others made tonight; DVC alone can tell of `src`."""
        files = {path: objects.md5(text.encode()) for path, text in self.said.items()} | tonight
        by = int(self.said["params.yaml"].strip(" \n}")[-1])
        of_params = entry.get("params", {}).get("params.yaml", {}).get("total.by", by) == by
        return of_params and all(dep["md5"] == files.get(dep["path"], dep["md5"]) for dep in entry["deps"])

    def sweep(self) -> None:
        """Three days on, what no night needs goes."""
        self.swept = True
        gc.look(self.made.root, record(self.made), nights=1, now=time() + 3 * 86_400).remove()

    def elsewhere(self) -> None:
        """Another worker runs it, on whose disk DVC's run cache is empty."""
        self.take_back()
        shutil.rmtree(self.made.root / ".dvc" / "cache" / "runs", ignore_errors=True)

    def _say(self, files: dict[str, str]) -> None:
        self.said = files
        for path, text in files.items():
            (self.made.root / path).write_text(text)


EVENTS: Mapping[Callable[[History], None], int] = {  # how often, of so many
    History.change: 3,
    History.take_back: 3,
    History.go_back: 3,
    History.merge: 3,
    History.run_by_hand: 3,
    History.fail: 5,
    History.some: 5,
    History.sweep: 5,
    History.elsewhere: 3,
}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 40))])
def test_a_night_publishes_what_its_commit_says_whatever_came_before(seed: int, toy: Make) -> None:
    draw, made = random.Random(seed), toy(STAGES)
    (made.root / "src").mkdir()
    made.commit(FIRST)
    if draw.choice([True, False]):
        by_hand(made)
    history, events = History(made, draw, FIRST, [(made.commit({}), FIRST)]), []
    for number in range(NIGHTS):
        event = draw.choices(list(EVENTS), list(EVENTS.values()))[0] if number else History.change
        events.append(event.__name__)
        event(history)
        made.commit({})
        before = newest(made)
        results = night(made)
        assert all(one.well for one in results.values()), (events, {one.sentence for one in results.values()})
        kept = {name: one.entry for name, one in results.items() if one.outcome == "unchanged"}
        assert kept == {name: before[name] for name in kept}, events
        both = history.said["seed.txt"] + history.said["params.yaml"]
        assert f"{made.git('show', 'nights:both')}\n" == both, events
        md5 = {out["path"]: out["md5"] for one in results.values() for out in (one.entry or {})["outs"]}
        assert md5 == {
            "made": objects.md5(history.said["seed.txt"].encode()),
            "both": objects.md5(both.encode()),
            "last": objects.md5((both + history.said["src/a"]).encode()),
        }, events
        assert made.git("status", "--porcelain") == "", events
        history.commits.append((made.git("rev-parse", "HEAD"), history.said))
