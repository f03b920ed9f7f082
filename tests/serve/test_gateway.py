"""The endpoint answers the official client with the release in production, and names its sections."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from starlette.testclient import TestClient

from nightshift import commit, engine, signature
from nightshift.answer import System
from nightshift.engine import Engine
from nightshift.errors import PortInUse, ReleaseInvalid
from nightshift.likelihood import Model
from nightshift.registry import Release
from nightshift.serve.follow import Follower, Served
from nightshift.serve.gateway import Gateway, application
from nightshift.serve.keys import Keys
from nightshift.serve.server import free
from tests import models
from tests.data.conftest import section

ROWS: list[dict[str, object]] = [
    section("pump.md", "Pump > Maintenance", "The pump is oiled every Monday by the keeper of the mill."),
    section("valve.md", "Valve > Colour", "The valve of the old well was painted green in spring."),
    section("board.md", "Board > Salaries", "The salaries of the board are oiled with champagne.", groups=["board"]),
]


RELEASE = Release("v0.1.0", "c" * 40, "d" * 64)


class Scripted(BaseHTTPRequestHandler):
    """An engine that says what it was asked, or breaks off."""

    def do_POST(self) -> None:
        """Answer like an engine."""
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = asked["messages"][-1]["content"]
        if "BREAK" in said and not asked.get("stream"):
            self.send_error(500)
            return
        self.send_response(200)
        self.end_headers()
        if not asked.get("stream"):
            choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
            body = {"id": "x", "object": "chat.completion", "created": 1, "model": "/secret/path", "choices": [choice]}
            self.wfile.write(json.dumps(body).encode())
            return
        for place, word in enumerate(said.split()):
            if "BREAK" in word:
                return
            self._chunk({"role": "assistant", "content": f"{word} "} if place == 0 else {"content": f"{word} "}, None)
        self._chunk({}, "stop")
        self.wfile.write(b"data: [DONE]\n\n")

    def _chunk(self, delta: dict[str, str], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "/secret", "choices": [choice]}
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Running:
    """A gateway in this process before a scripted engine."""

    client: TestClient
    keys: Keys
    key: str

    def ask(self, text: str, key: str | None = None, **more: Any) -> httpx.Response:
        body = {"model": "nightshift", "messages": [{"role": "user", "content": text}], **more}
        head = {"Authorization": f"Bearer {key or self.key}"}
        return self.client.post("/v1/chat/completions", json=body, headers=head)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("gateway")
    root = Path(__file__).resolve().parents[2]
    home = folder / "home"
    home.mkdir()
    keys = Keys(home)
    scripted = ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
    threading.Thread(target=scripted.serve_forever, daemon=True).start()
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    made = Engine(child, f"http://127.0.0.1:{scripted.server_port}", "/secret/path", folder / "scratch")
    follower = Follower(folder, home, folder / "state", 1, lambda _: None)
    system = System.open(models.system(folder / "plain", root, ROWS))
    follower.served = Served(RELEASE, system, made)
    key = keys.create("test", ("infer:chat",), ("public",), 1, time.time())
    with TestClient(application(Gateway(follower, home)), raise_server_exceptions=False) as client:
        yield Running(client, keys, key)
    child.kill()
    scripted.shutdown()


@pytest.mark.parametrize("header", ["", "Basic abc", "Bearer", "Bearer ns_x", "bearer", "Bearer  "])
def test_no_key_no_answer(running: Running, header: str) -> None:
    body = {"model": "nightshift", "messages": [{"role": "user", "content": "Hello"}]}
    said = running.client.post("/v1/chat/completions", json=body, headers={"Authorization": header})
    assert said.status_code == 401
    assert said.json()["error"]["code"] in ("missing_api_key", "invalid_api_key")
    assert said.headers["www-authenticate"] == "Bearer"


def test_a_key_without_the_scope_is_refused(running: Running) -> None:
    key = running.keys.create("test", ("models:read",), ("public",), 1, time.time())
    assert running.ask("Hello", key).json()["error"]["code"] == "insufficient_scope"


@pytest.mark.parametrize("scope", ["models:read", "infer:chat"])
def test_either_scope_shows_the_models(running: Running, scope: str) -> None:
    key = running.keys.create("test", (scope,), ("public",), 1, time.time())
    said = running.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert [one["id"] for one in said.json()["data"]] == ["nightshift"]


def test_a_key_without_any_scope_sees_no_models(running: Running) -> None:
    key = running.keys.create("test", (), ("public",), 1, time.time())
    said = running.client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
    assert (said.status_code, said.json()["error"]["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    ("path", "status"), [("/", 404), ("/v1/../admin", 404), ("/docs", 404), ("/v1/chat/completions", 405)]
)
def test_everything_else_is_refused_in_the_same_shape(running: Running, path: str, status: int) -> None:
    said = running.client.get(path)
    assert said.status_code == status
    assert set(said.json()["error"]) == {"message", "type", "param", "code"}


def test_an_answer_names_its_sections_and_hides_the_engine(running: Running) -> None:
    said = running.ask("When is the pump oiled?")
    body = said.json()
    assert body["nightshift"]["sections"][0]["title"] == "Pump > Maintenance"
    assert body["nightshift"]["release"] == said.headers["x-model-digest"] == "d" * 64
    assert body["model"] == "nightshift"
    assert "oiled every Monday" in body["choices"][0]["message"]["content"]
    assert "secret" not in said.text


def test_what_a_keys_groups_may_not_see_is_not_answered_from(running: Running) -> None:
    board = running.keys.create("board", ("infer:chat",), ("public", "board"), 1, time.time())
    question = "What about salaries and champagne of the board?"
    seen = running.ask(question).json()
    assert "Board > Salaries" not in [one["title"] for one in seen["nightshift"]["sections"]]
    assert "oiled with champagne" not in seen["choices"][0]["message"]["content"]
    assert running.ask(question, board).json()["nightshift"]["sections"][0]["title"] == "Board > Salaries"


def test_a_question_that_does_not_fit_is_refused_before_the_engine(running: Running) -> None:
    said = running.ask("word " * 3000)
    assert (said.status_code, said.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert running.ask("Hello", max_tokens=100_000).status_code == 400


def test_a_stream_ends_with_its_sections(running: Running) -> None:
    said = running.ask("When is the pump oiled?", stream=True)
    lines = [line for line in said.text.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    last = json.loads(lines[-2].removeprefix("data: "))
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["nightshift"]["sections"][0]["title"] == "Pump > Maintenance"


def test_a_stream_that_breaks_off_says_so(running: Running) -> None:
    said = running.ask("one two BREAK three", stream=True)
    lines = [json.loads(line[6:]) for line in said.text.splitlines() if line.startswith("data: {")]
    assert lines[-1]["error"]["code"] == "engine_error"
    assert not any(choice.get("finish_reason") for line in lines[:-1] for choice in line["choices"])
    assert running.ask("BREAK").status_code == 502


@pytest.mark.parametrize(
    ("about", "said_so"),
    [
        ({}, "is being loaded"),
        ({"looked": True}, "No release is in production yet"),
        ({"looked": True, "wanted": RELEASE}, "is being loaded"),
        ({"looked": True, "wanted": RELEASE, "failed": RELEASE.digest}, "did not pass its check"),
    ],
)
def test_without_a_release_it_says_why(tmp_path: Path, running: Running, about: dict[str, Any], said_so: str) -> None:
    follower = Follower(tmp_path, tmp_path, tmp_path, 1, lambda _: None)
    vars(follower).update(about)
    key = Keys(tmp_path).create("test", ("infer:chat",), ("public",), 1, time.time())
    with TestClient(application(Gateway(follower, tmp_path))) as client:
        body = {"model": "nightshift", "messages": [{"role": "user", "content": "Hello"}]}
        said = client.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})
        assert (said.status_code, said.json()["error"]["code"]) == (503, "not_ready")
        assert said_so in said.json()["error"]["message"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200


def test_a_port_in_use_is_said(running: Running) -> None:
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as other,
        pytest.raises(PortInUse, match="something else listens"),
    ):
        free(other.server_port)


def test_an_unsigned_release_is_never_served(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "releases" / "x"
    with commit.folder(folder) as draft:
        models.system(draft / "system", root, ROWS)
    digest = commit.digest(folder)
    folder.rename(folder.with_name(digest))
    follower = Follower(tmp_path, tmp_path / "home", tmp_path / "state", 1, lambda _: None)
    with pytest.raises(ReleaseInvalid, match="no signature"):
        follower.bring_up(Release("v0.1.0", "c" * 40, digest))


def test_the_official_client_is_answered_by_the_real_engine(root: Path, tmp_path: Path) -> None:
    """A signed release, its own engine, the client over HTTP; and the judged model says the same."""
    folder = tmp_path / "state" / "releases" / "x"
    with commit.folder(folder) as draft:
        models.system(draft / "system", root, ROWS)
    release = Release("v0.1.0", "c" * 40, commit.digest(folder))
    folder = folder.rename(folder.with_name(release.digest))
    home = tmp_path / "home"
    home.mkdir()
    signature.sign(folder, home / "releases" / release.digest / "model.sig", home)
    follower = Follower(tmp_path, home, tmp_path / "state", 1, lambda _: None)
    served = follower.served = follower.bring_up(release)
    try:
        key = Keys(home).create("test", ("infer:chat",), ("public",), 1, time.time())
        with TestClient(application(Gateway(follower, home))) as client:
            asked = openai.OpenAI(api_key=key, base_url="http://testserver/v1", http_client=client, max_retries=0)
            messages: Any = [{"role": "user", "content": "When is the pump oiled?"}]
            whole = asked.chat.completions.create(model="nightshift", messages=messages, temperature=0)
            parts = list(asked.chat.completions.create(model="nightshift", messages=messages, stream=True))
            with pytest.raises(openai.AuthenticationError):
                openai.OpenAI(api_key="no", base_url="http://testserver/v1", http_client=client).models.list()
            with pytest.raises(openai.NotFoundError):
                asked.chat.completions.create(model="gpt-4", messages=messages)
        assert whole.model_extra["nightshift"]["sections"][0]["title"] == "Pump > Maintenance"  # type: ignore[index]
        text = "".join(part.choices[0].delta.content or "" for part in parts if part.choices)
        assert text.strip() == (whole.choices[0].message.content or "").strip()
        own = Model.load(served.system.base, None, models.COMPUTE)
        hits = served.system.sections("When is the pump oiled?")
        limit = served.system.settings["max_new_tokens"]
        judged = own.generate(served.system.messages("When is the pump oiled?", hits), limit)
        assert judged == (whole.choices[0].message.content or "").strip()
    finally:
        follower.close()
    assert not served.engine.alive


def test_an_engine_dies_with_its_parent(root: Path, tmp_path: Path) -> None:
    system = models.system(tmp_path / "plain", root, ROWS)
    script = (
        "import sys, os, signal\nfrom pathlib import Path\nfrom nightshift import engine\n"
        "print(engine.start(Path(sys.argv[1]), 1).child.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(system)], capture_output=True, text=True, check=False)
    assert ended.returncode == -9
    pid = int(ended.stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        if "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text():
            break
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


def test_lines_of_a_stream_become_chunks() -> None:
    assert list(engine.deltas('data: {"a": 1}')) == [{"a": 1}]
    assert list(engine.deltas("data: [DONE]")) == list(engine.deltas(": ping")) == []
