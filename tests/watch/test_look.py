"""A fault in health or accuracy is told once, its end once, by mail and by webhook; one report joins what is known."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nightshift import drift, feedback, invariants, params, registry, rollouts
from nightshift.counts import Counts
from nightshift.errors import DiskFull, StorageError, no_room
from nightshift.watch import look, nights, report, told
from nightshift.watch.alerts import Book
from tests.release.test_release import git, tag
from tests.watch.sinks import Sink, mail, webhook

NOW = 1_790_000_000 // 3600 * 3600 + 3599  # the last minute of an hour
MINUTE = NOW // 60
SERVES, BEFORE = "a" * 64, "b" * 64


class Project:
    """A project whose endpoint runs, whose clock is given, and whose look sends to two sinks."""

    def __init__(self, root: Path, folder: Path, mails: Sink, hook: Sink) -> None:
        self.root, self.home, self.state = folder / "project", folder / "home", folder / "state"
        subprocess.run(["git", "init", "-q", str(self.root)], check=True)
        shutil.copytree(root / "include" / "policies", self.root / "include" / "policies")
        text = (root / params.FILE).read_text()
        address = f'{{host: localhost, port: {mails.port}, security: plain, sender: "n@b.c", to: ["ada@b.c"]}}'
        text = text.replace("email: null", f"email: {address}", 1)
        text = text.replace("webhook: null", f'webhook: {{url: "http://127.0.0.1:{hook.port}/"}}', 1)
        (self.root / params.FILE).write_text(text.replace('schedule: "0 2 * * *"', "schedule: null", 1))
        git(self.root, "commit", "-q", "--allow-empty", "-m", "first")
        tag(self.root, "v0.1.0", BEFORE)
        tag(self.root, "v0.2.0", SERVES)
        registry.assign(self.root, registry.releases(self.root)[1])
        self.counts, self.mails, self.hook = Counts(self.home), mails, hook
        self.counts.begin(MINUTE - 1440)
        self.counted(-1440, availability=(6000, 6000), correctness=(300, 300))

    def counted(self, minute: int, release: str = SERVES, **of: tuple[int, int]) -> None:
        self.counts.add(MINUTE + minute, {(sli, release): pair for sli, pair in of.items()})

    def look(self, minute: int = 0, take: bool = False) -> dict[str, Any]:
        return look.once(self.root, self.home, self.state, {}, NOW + 60 * minute, take, sleep=lambda _: None)

    def told(self) -> list[str]:
        """Subjects of the mails; the webhook was told the same."""
        subjects = [str(letter["Subject"]) for letter in self.mails.mails]
        assert [body["subject"] for _, body in self.hook.calls] == subjects
        return subjects


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Any:
    with mail() as mails, webhook() as hook:
        yield Project(root, tmp_path, mails, hook)


def test_a_night_over_its_deadline_is_told_once_and_its_end_once(project: Project) -> None:
    project.counted(0, availability=(100, 100), correctness=(5, 5))
    nights.mark(project.state, "manual-1")
    folder = project.state / "runs" / "manual-1"
    os.utime(folder / nights.LATE, (NOW, NOW))
    (opened,) = project.look()["opened"]
    assert opened["sentence"] == "The night manual-1 runs longer than params.yaml: night.deadline_hours"
    assert project.look()["opened"] == []
    said = {"run": "manual-1", "published": "c" * 40, "refused": "", "sentence": None, "stages": {}}
    (folder / "night.json").write_text(json.dumps(said | {"ended": NOW + 30}))
    assert project.look(1)["resolved"] == ["late manual-1"]
    assert len(project.told()) == 2


def test_a_candidate_that_went_back_is_told_until_another_is_tried(project: Project) -> None:
    why = "it was never ready: engine: /srv/models did not start"
    at = (BEFORE, "v0.1.0", SERVES, "canary", "5 %")
    project.counted(0, availability=(100, 100), correctness=(5, 5))
    rollouts.write(project.home, rollouts.Entry(NOW, *at, "back", why))
    (opened,) = project.look()["opened"]
    assert opened["sentence"] == "v0.1.0 went back at 5 %: it was never ready"
    assert len(project.told()) == 1
    assert project.look()["opened"] == []
    rollouts.write(project.home, rollouts.Entry(NOW, *at, "proposed"))
    assert project.look()["resolved"] == [opened["id"]]


def test_when_all_is_well_nobody_is_told(project: Project) -> None:
    project.counted(0, availability=(100, 100), correctness=(5, 5))
    found = project.look()
    assert found == {"opened": [], "resolved": [], "open": {}, "taken": [], "untold": {}}
    assert project.told() == []


def test_a_fault_of_health_is_told_once_and_its_end_once(project: Project) -> None:
    project.counted(0, availability=(0, 4000), first_token=(0, 4000), overhead=(0, 4000))
    first = project.look()
    assert [(one["id"], one["severity"]) for one in first["opened"]] == [("health", "page")]
    for minute in (1, 2, 3):
        project.counted(minute, availability=(0, 10))
        again = project.look(minute)
        assert (again["opened"], again["open"]) == ([], {"health": "page"})
    assert project.told() == ["Nightshift: page: health"]
    body = project.hook.calls[0][1]["text"]
    assert "availability burns" in body
    assert "first_token burns" in body
    over = 4 * 1440
    project.counted(over, availability=(9000, 9000), first_token=(9000, 9000), overhead=(9000, 9000))
    last = project.look(over)
    assert (last["resolved"], last["open"]) == (["health"], {})
    assert project.told() == ["Nightshift: page: health", "Nightshift: resolved: health"]
    keys = [head["Idempotency-Key"] for head, _ in project.hook.calls]
    assert len(set(keys)) == 2


def test_a_fault_of_accuracy_is_told_once_whatever_shows_it(project: Project) -> None:
    """Golden questions fail, and on the same day people ask about other things."""
    for day in range(1, 28):
        project.counts.see(MINUTE - day * 1440, asked(40, ["pump", "valve", "boiler", "gauge", "turbine"]))
    project.counts.see(MINUTE, asked(200, ["invoice", "refund", "account", "voucher", "parcel"]))
    project.counted(0, correctness=(0, 60), availability=(60, 60))
    found = project.look()
    (one,) = found["opened"]
    assert (one["id"], one["severity"]) == ("accuracy", "page")
    assert "correctness burns" in one["sentence"]
    assert "What is asked or answered has shifted: words by" in one["sentence"]
    assert project.told() == ["Nightshift: page: accuracy"]


def asked(number: int, subjects: list[str]) -> Counter[tuple[str, str, int]]:
    found = Counter[tuple[str, str, int]]()
    for place in range(number):
        question = f"What is the {subjects[place % len(subjects)]} for"
        found += Counter(drift.seen(SERVES, question, "It moves water", "answered"))
    return found


def test_a_ticket_that_becomes_a_page_is_told_and_one_that_grows_milder_is_not(project: Project) -> None:
    project.counted(0, availability=(5880, 6000))
    assert [one["severity"] for one in project.look()["opened"]] == ["ticket"]
    project.counted(1, availability=(0, 3000))
    assert [one["severity"] for one in project.look(1)["opened"]] == ["page"]
    project.counted(40, availability=(20_000, 20_000))
    assert project.look(40) == {
        "opened": [], "resolved": [], "open": {"health": "page"}, "taken": [], "untold": {},
    }  # fmt: skip
    assert project.told() == ["Nightshift: ticket: health", "Nightshift: page: health"]


def test_an_invariant_that_holds_nothing_back_is_told_until_it_is_lifted(project: Project) -> None:
    project.counted(0, availability=(100, 100))
    invariants.broke(project.home, 1.0, "canary", "a canary of training stood in an answer", holds=False)
    assert [(one["id"], one["severity"]) for one in project.look()["opened"]] == [("invariant canary", "page")]
    assert project.look(1)["opened"] == []
    invariants.lift(project.home, 2.0, "ada", "canary", "PM-1")
    assert project.look(2)["resolved"] == ["invariant canary"]
    assert project.told() == ["Nightshift: page: invariant canary", "Nightshift: resolved: invariant canary"]


def test_silence_a_broken_invariant_and_a_night_are_alerts_of_their_own_that_start_no_night(project: Project) -> None:
    invariants.broke(project.home, 1.0, "canary", "a canary of training stood in an answer")
    (project.state / "runs" / "one").mkdir(parents=True)
    broke = {"run": "one", "published": None, "stages": {"dedup": {"outcome": "failed", "sentence": "no room"}}}
    (project.state / "runs" / "one" / "night.json").write_text(json.dumps(broke | {"ended": NOW}))
    found = project.look(11, take=True)
    assert sorted(one["id"] for one in found["opened"]) == ["invariant canary", "night one", "silence"]
    assert found["taken"] == []
    assert len(project.told()) == 3
    assert any("the night broke at dedup (failed): no room" in body["text"] for _, body in project.hook.calls)


def test_a_channel_that_does_not_answer_is_told_at_the_next_look_and_the_other_is_not_told_twice(
    project: Project,
) -> None:
    project.counted(0, availability=(0, 4000))
    project.hook.answers += [503] * 4
    first = project.look()
    assert first["untold"] == {"webhook": "the webhook answered 503"}
    assert (len(project.mails.mails), len(project.hook.calls)) == (1, 0)
    second = project.look(1)
    assert (second["opened"], second["untold"]) == ([], {})
    assert project.told() == ["Nightshift: page: health"]


@pytest.mark.parametrize("status", [400, 401])
def test_a_message_that_is_refused_for_good_holds_up_no_other(project: Project, status: int) -> None:
    project.counted(0, availability=(100, 100))
    invariants.broke(project.home, 1.0, "scrub", "EMAIL stood in an answer")
    project.hook.answers += [status]
    assert project.look()["untold"] == {"webhook": f"the webhook answered {status}"}
    project.counted(1, availability=(0, 4000))
    project.hook.answers += [status]
    project.look(1)
    assert [body["subject"] for _, body in project.hook.calls] == ["Nightshift: page: health"]
    assert project.look(2)["untold"] == {}  # somebody mended what was wrong with it
    assert project.hook.calls[1][1]["subject"] == "Nightshift: page: invariant scrub"
    assert len(project.mails.mails) == 2


def test_the_report_says_where_the_last_candidate_stands(project: Project) -> None:
    release = registry.releases(project.root)[0]
    said = rollouts.Entry(NOW, release.digest, release.version, SERVES, "canary", "5 %", "begun")
    rollouts.write(project.home, said)
    project.look()
    made = json.loads((project.state / report.FILE).read_text())
    assert f"Last candidate: {release.version} is tried at 5 %, " in told.text(made)
    rollouts.write(project.home, replace(said, outcome="interrupted", reason="v0.3.0 was assigned meanwhile"))
    project.look()
    again = told.text(json.loads((project.state / report.FILE).read_text()))
    assert "is to be tried anew from its start, " in again
    assert again.split("Last candidate")[1].splitlines()[0].endswith(": v0.3.0 was assigned meanwhile.")


def test_what_waits_for_a_channel_that_is_named_no_more_is_not_sent_and_stops_no_other(project: Project) -> None:
    project.counted(0, availability=(0, 4000))
    project.hook.answers += [503] * 4
    assert project.look()["untold"] == {"webhook": "the webhook answered 503"}
    text = (project.root / params.FILE).read_text()
    url = f'webhook: {{url: "http://127.0.0.1:{project.hook.port}/"}}'
    assert url in text
    (project.root / params.FILE).write_text(text.replace(url, "webhook: null", 1))
    invariants.broke(project.home, 1.0, "scrub", "EMAIL stood in an answer")
    assert project.look(1)["untold"] == {}
    assert [str(letter["Subject"]) for letter in project.mails.mails] == [
        "Nightshift: page: health", "Nightshift: page: invariant scrub",
    ]  # fmt: skip
    assert project.hook.calls == []


def test_a_fault_that_nobody_has_heard_of_since_is_not_over(project: Project) -> None:
    project.counted(0, availability=(0, 4000))
    assert list(project.look()["open"]) == ["health"]
    for days in (1, 5, 12):
        assert "health" not in project.look(days * 1440)["resolved"]


def test_a_channel_that_is_away_is_asked_once_a_look(project: Project) -> None:
    project.counted(0, availability=(0, 4000))
    invariants.broke(project.home, 1.0, "scrub", "EMAIL stood in an answer")
    project.hook.answers += [503] * 4
    assert project.look()["untold"] == {"webhook": "the webhook answered 503"}
    assert (project.hook.tries, len(project.hook.calls), len(project.mails.mails)) == (4, 0, 2)
    project.look(1)
    assert len(project.told()) == 2


def test_what_was_killed_before_it_sent_is_sent_by_the_next_look(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    project.counted(0, availability=(0, 4000))
    monkeypatch.setattr(look.notify, "send", killed)
    with pytest.raises(KeyboardInterrupt):
        project.look()
    monkeypatch.undo()
    assert project.look(1)["opened"] == []
    assert project.told() == ["Nightshift: page: health"]


def test_the_scheduler_gets_an_alert_once_whoever_saw_it_first(project: Project) -> None:
    project.counted(0, availability=(0, 4000))
    assert project.look()["taken"] == []  # a person
    assert project.look(1, take=True)["taken"] == ["health"]
    assert project.look(2, take=True)["taken"] == []
    over = 4 * 1440
    project.counted(over, availability=(9000, 9000))
    assert project.look(over)["resolved"] == ["health"]
    project.counted(over + 30, availability=(0, 9000))
    project.look(over + 30)
    project.counted(over + 6 * 1440, availability=(9000, 9000))
    assert project.look(over + 6 * 1440, take=True)["taken"] == []  # it is over before the scheduler looked


@pytest.mark.parametrize("fault", ["a kill while it is told", "a disk without room at the end"])
def test_an_alert_is_taken_by_the_next_look_where_this_one_broke(
    project: Project, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Book] = []

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    def full(home: Path, book: Book) -> None:
        saved.append(book)
        if len(saved) > 1:
            raise no_room(str(home))
        save(home, book)

    save = look.alerts.save
    project.counted(0, availability=(0, 4000))
    if "kill" in fault:
        monkeypatch.setattr(look.notify, "send", killed)
    else:
        monkeypatch.setattr(look.alerts, "save", full)
    with pytest.raises((KeyboardInterrupt, DiskFull)):
        project.look(take=True)
    monkeypatch.undo()
    assert project.look(1, take=True)["taken"] == ["health"]
    assert project.look(2, take=True)["taken"] == []


def test_a_damaged_book_is_one_sentence(project: Project) -> None:
    project.look()
    (project.home / "watch" / "alerts.json").write_text('{"since": 1}')
    with pytest.raises(StorageError, match=r"alerts\.json: what is open cannot be read"):
        project.look()


def test_the_report_joins_health_accuracy_feedback_and_nights_by_release(project: Project) -> None:
    project.counted(0, availability=(398, 400), correctness=(4, 5), grounded=(3, 4), privacy=(9, 9))
    project.counted(-1500, release=BEFORE, availability=(10, 10))
    rows = [
        {"time": NOW - 5, "trace": "1" * 32, "release": SERVES, "rating": 1, "correction": "Ask ingrid@kvarn.example"},
        {"time": NOW - 4, "trace": "2" * 32, "release": SERVES, "rating": -0.5},
        {"time": NOW - 3, "trace": "3" * 32, "release": SERVES, "rating": 0},
        {"time": NOW - 2, "trace": "4" * 32, "release": None, "rating": 1},
        {"time": NOW - 40 * 86_400, "trace": "5" * 32, "release": SERVES, "rating": 1},
    ]
    lines = [json.dumps({"key": "a" * 10} | row) for row in rows] + ["{", '{"rating": "good"}']
    feedback.kept(project.home).append("\n".join([*lines, ""]).encode(), NOW)
    project.look()
    text = (project.state / report.FILE).read_text()
    assert "kvarn" not in text
    said = json.loads(text)
    assert (said["serving"], said["version"], said["silent_minutes"]) == (SERVES, "v0.2.0", 0)
    assert list(said["releases"]) == [SERVES, BEFORE]
    one = said["releases"][SERVES]
    assert one["serves"]
    assert (one["health"]["availability"]["month"]["good"], one["health"]["availability"]["day"]["valid"]) == (
        6398,
        400,
    )
    low, high = (one["accuracy"]["correctness"]["day"][key] for key in ("low", "high"))
    assert low < 0.8 < high
    assert (one["accuracy"]["grounded"]["day"]["share"], one["privacy"]["privacy"]["day"]["share"]) == (0.75, 1.0)
    assert one["feedback"]["share"] == 0.5
    assert said["releases"][BEFORE]["health"]["availability"]["day"] is None
    assert said["objectives"]["availability"]["kept"]["valid"] == 6410
    assert said["objectives"]["availability"]["budget_left"] is not None
    assert said["objectives"]["night_on_time"]["kept"] is None
    shown = told.text(said)
    for part in ("In production: v0.2.0 (aaaaaaaaaaaa).", "Nothing is wrong.", "liked", "availability", "Promises:"):
        assert part in shown
