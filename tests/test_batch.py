"""A file of questions becomes a file of answers, whole and in order, whatever happens on the way."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from nightshift import batch
from nightshift.cli import asking
from nightshift.errors import AccessDenied, DiskFull, SourceError, StorageError
from tests.conftest import ROOT
from tests.served import serving

Reply = tuple[int, dict[str, str], dict[str, Any]]


def answer(question: str) -> Reply:
    """What the endpoint says when all is well."""
    section = {"id": "s1", "title": "Pump", "source": "notes", "path": "pump.md", "score": 1.0}
    about = {"release": "d" * 64, "version": "v0.1.0", "trace": "t" * 32, "sections": [section], "abstained": False}
    return 200, {}, {"choices": [{"message": {"content": f"About {question}"}}], "nightshift": about}


def error(status: int, code: str, **head: str) -> Reply:
    return status, head, {"error": {"message": "No.", "type": "x", "param": None, "code": code}}


@contextmanager
def endpoint(reply: Callable[[str], Reply]) -> Iterator[tuple[batch.Endpoint, list[float]]]:
    """An endpoint that says what it is told to; the pauses that were made instead of sleeping."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, head, body = reply(asked["messages"][-1]["content"])
            self.send_response(status)
            for name, value in head.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    pauses: list[float] = []
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield batch.Endpoint(f"{url}/v1", "ns_x", pauses.append), pauses


def file(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "questions.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("at_once", [1, 3])
def test_answers_come_whole_and_in_order(at_once: int, tmp_path: Path) -> None:
    lines = [f"q{number}" for number in range(7)]
    asked = batch.questions(file(tmp_path, *lines[:3], "", '{"question": "q3", "id": 3}', *lines[4:]))
    with endpoint(answer) as (server, _):
        assert batch.run(asked, tmp_path / "out.jsonl", server.ask, at_once) == 0
    made = read(tmp_path / "out.jsonl")
    assert [one["question"] for one in made] == lines
    assert made[3]["id"] == 3
    assert made[0] == {
        "question": "q0", "answer": "About q0", "release": "d" * 64, "version": "v0.1.0", "trace": "t" * 32,
        "abstained": False, "sections": [{"id": "s1", "title": "Pump", "source": "notes"}],
    }  # fmt: skip
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out.jsonl", "questions.txt"]


def test_a_question_may_hold_what_ends_a_line_of_text(tmp_path: Path) -> None:
    """U+2028 and its like stand in JSON as they are, in the questions and in what is kept of the answers."""
    lines = ["one\u2028two", json.dumps({"question": "three\x85four"}, ensure_ascii=False), "five"]
    asked = batch.questions(file(tmp_path, *lines))
    assert [one.text for one in asked] == ["one\u2028two", "three\x85four", "five"]
    seen: list[str] = []

    def ask(question: str) -> dict[str, Any]:
        seen.append(question)
        if question == "five" and len(seen) == 3:
            raise StorageError("away")
        return {"answer": "six\u2029seven"}

    with pytest.raises(StorageError):
        batch.run(asked, tmp_path / "out", ask, 1)
    assert batch.run(asked, tmp_path / "out", ask, 1) == 0
    assert seen[3:] == ["five"]


def test_a_full_endpoint_is_waited_for_as_it_says(tmp_path: Path) -> None:
    replies = [error(503, "server_overloaded", retry_after="7"), error(429, "rate_limit_exceeded"), answer("q")]
    with endpoint(lambda _: replies.pop(0)) as (server, pauses):
        assert server.ask("q")["answer"] == "About q"
    assert pauses == [7.0, 1.0]


def test_what_is_refused_is_an_answer_and_a_refused_key_ends_it(tmp_path: Path) -> None:
    def reply(question: str) -> Reply:
        return error(400, "context_length_exceeded") if question == "long" else answer(question)

    with endpoint(reply) as (server, _):
        assert batch.run(batch.questions(file(tmp_path, "a", "long", "b")), tmp_path / "out", server.ask, 1) == 1
    assert [one.get("error") for one in read(tmp_path / "out")] == [None, "context_length_exceeded", None]
    with endpoint(lambda _: error(401, "invalid_api_key")) as (server, _), pytest.raises(AccessDenied, match="refuses"):
        batch.run(batch.questions(file(tmp_path, "a")), tmp_path / "none", server.ask, 1)
    assert not (tmp_path / "none").exists()


def test_a_batch_that_broke_off_goes_on_where_it_was(tmp_path: Path) -> None:
    seen: list[str] = []

    def reply(question: str) -> Reply:
        seen.append(question)
        return error(502, "engine_error") if question == "q2" and broken else answer(question)

    asked = batch.questions(file(tmp_path, "q0", "q1", "q2", "q3"))
    broken = True
    with endpoint(reply) as (server, _):
        with pytest.raises(StorageError, match="it gave no answer in 20 tries"):
            batch.run(asked, tmp_path / "out", server.ask, 1)
        assert [one["question"] for one in read(tmp_path / "out.part")] == ["q0", "q1"]
        assert not (tmp_path / "out").exists()
        with (tmp_path / "out.part").open("a") as part:
            part.write('{"question": "q2", "ans')  # as a kill leaves it
        broken = False
        seen.clear()
        batch.run(asked, tmp_path / "out", server.ask, 1)
    assert seen == ["q2", "q3"]
    assert [one["question"] for one in read(tmp_path / "out")] == ["q0", "q1", "q2", "q3"]


def test_other_questions_are_not_given_old_answers(tmp_path: Path) -> None:
    (tmp_path / "out.part").write_text('{"question": "other", "answer": "old"}\n')
    with endpoint(answer) as (server, _):
        batch.run(batch.questions(file(tmp_path, "q0")), tmp_path / "out", server.ask, 1)
    assert read(tmp_path / "out")[0]["answer"] == "About q0"


def test_an_endpoint_that_is_not_there_is_said(tmp_path: Path) -> None:
    nobody = batch.Endpoint("http://127.0.0.1:9/v1", "ns_x", lambda _: None)
    with pytest.raises(StorageError, match=r"127\.0\.0\.1:9/v1: it gave no answer"):
        nobody.ask("q")


def test_that_an_endpoint_has_to_be_waited_for_is_said_once_and_before_the_first_pause(tmp_path: Path) -> None:
    said: list[str] = []
    nobody = batch.Endpoint("http://127.0.0.1:9/v1", "ns_x", lambda _: said.append("pause"), said.append)
    with pytest.raises(StorageError):
        nobody.ask("q")
    assert said[0].startswith("Waiting for the endpoint at http://127.0.0.1:9/v1 (")
    assert said[1:] == ["pause"] * batch.TRIES
    replies = [error(503, "not_ready"), answer("q")]
    with endpoint(lambda _: replies.pop(0)) as (server, _):
        server.say = said.append
        server.ask("q")
    assert said[-1] == f"Waiting for the endpoint at {server.url} (not_ready)."


def test_a_pipe_or_a_device_is_written_to_and_stays_what_it_is(tmp_path: Path) -> None:
    asked, pipe, read_whole = batch.questions(file(tmp_path, "a", "long")), tmp_path / "pipe", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read_whole.append(pipe.read_text()))
    reader.start()
    with endpoint(lambda question: error(400, "no") if question == "long" else answer(question)) as (server, _):
        assert batch.run(asked, pipe, server.ask, 1) == 1
        reader.join(10)
        assert [json.loads(line).get("error") for line in read_whole[0].splitlines()] == [None, "no"]
        full = tmp_path / "full"
        full.symlink_to("/dev/full")
        with pytest.raises(DiskFull, match="full: no room left"):
            batch.run(asked, full, server.ask, 1)
    assert (pipe.is_fifo(), full.is_char_device()) == (True, True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["full", "pipe", "questions.txt"]


def test_a_pipe_that_nobody_reads_any_more_is_said(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    def ask(question: str) -> dict[str, Any]:
        os.close(held)
        return {"answer": question}

    with pytest.raises(
        StorageError, match=r"pipe: it takes no more answers \(broken pipe\); run it again, into a file"
    ):
        batch.run(batch.questions(file(tmp_path, "a")), pipe, ask, 1)


@pytest.mark.parametrize(
    ("out", "said"), [("nowhere/out", "there is no folder .*nowhere; name"), (".", "it is a folder")]
)
def test_where_no_file_can_be_nothing_is_asked_or_made(out: str, said: str, tmp_path: Path) -> None:
    def ask(_: str) -> dict[str, Any]:
        raise AssertionError

    with pytest.raises(SourceError, match=said):
        batch.run(batch.questions(file(tmp_path, "a")), tmp_path / out, ask, 1)
    assert [one.name for one in tmp_path.iterdir()] == ["questions.txt"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a", '{"id": 1}'], r"questions\.txt:2: this line has no question"),
        (["{"], r"questions\.txt:1: this line has no question"),
        (['{"question": " "}'], r"questions\.txt:1: this line has no question"),
        (["", " "], "no question is in it"),
    ],
)
def test_a_file_without_questions_asks_nothing(lines: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=said):
        batch.questions(file(tmp_path, *lines))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("a",), "1 question, of which 0 were refused: "),
        (("a", "long"), "2 questions, of which 1 was refused: "),
    ],
)
def test_the_command_says_how_many_it_asked(
    lines: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    (tmp_path / "key").write_text("ns_x")
    with endpoint(lambda question: error(400, "no") if question == "long" else answer(question)) as (server, _):
        asking.ask(file(tmp_path, *lines), tmp_path / "out", server.url, tmp_path / "key")
    assert capsys.readouterr().err == f"{said}{tmp_path / 'out'}\n"
