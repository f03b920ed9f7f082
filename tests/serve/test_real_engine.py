"""A signed release, its own engine, and the official client over HTTP; an unsigned one is never served."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from nightshift import commit, port, signature
from nightshift.errors import ReleaseInvalid
from nightshift.likelihood import Model
from nightshift.registry import Release
from nightshift.serve.follow import Follower
from nightshift.serve.keys import Keys
from nightshift.serve.listener import protocol
from nightshift.serve.served import Served
from nightshift.serve.server import Service, Settings
from tests import models
from tests.conftest import ROOT
from tests.serve.scripted import ROWS, TRACER, _running

QUESTION: Any = [{"role": "user", "content": "When is the pump oiled?"}]


@dataclass
class Real:
    """A served release, and clients of its endpoint."""

    served: Served
    url: str
    key: str

    def client(self, key: str | None = None) -> openai.OpenAI:
        return openai.OpenAI(api_key=key or self.key, base_url=self.url, max_retries=0)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    folder = tmp_path_factory.mktemp("real")
    subprocess.run(["git", "init", "-q", folder], check=True)  # whose registry knows of no release
    home, made = folder / "home", folder / "state" / "releases" / "x"
    home.mkdir()
    with commit.folder(made) as draft:
        models.system(draft / "system", ROOT, ROWS)
    release = Release("v0.1.0", "c" * 40, commit.digest(made))
    made = made.rename(made.with_name(release.digest))
    signature.sign(made, home / "releases" / release.digest / "model.sig", home)
    follower = Follower(folder, home, folder / "state", 1, lambda _: None)
    follower.served = follower.bring_up(release)
    settings = Settings.read(ROOT)
    service = Service.of(follower, home, ROOT, settings, TRACER)
    key = Keys(home).create("test", ("infer:chat", "infer:completions"), ("public",), 1, time.time())
    try:
        with _running([(service.public, port.unused(), protocol(settings.limits))], service.gateway.close) as [url]:
            yield Real(follower.served, f"{url}/v1", key)
    finally:
        follower.close()
        assert not follower.served.alive


def test_the_official_client_is_answered_and_the_judged_model_says_the_same(real: Real) -> None:
    client = real.client()
    whole = client.chat.completions.create(model="nightshift", messages=QUESTION, temperature=0)
    parts = list(client.chat.completions.create(model="nightshift", messages=QUESTION, stream=True))
    assert whole.model_extra["nightshift"]["sections"][0]["title"] == "Pump > Maintenance"  # type: ignore[index]
    said = whole.choices[0].message.content or ""
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == said
    own = Model.load(real.served.system.base, None, models.COMPUTE)
    hits = real.served.system.sections(QUESTION[0]["content"])
    messages = real.served.system.messages(QUESTION[0]["content"], hits)
    judged = own.generate(messages, real.served.system.settings["max_new_tokens"])
    assert judged.split() == said.split()


def test_it_raises_the_official_clients_own_errors(real: Real) -> None:
    client = real.client()
    with pytest.raises(openai.AuthenticationError):
        real.client("no").models.list()
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=QUESTION)
    with pytest.raises(openai.PermissionDeniedError):
        client.embeddings.create(model="nightshift", input="a")
    with pytest.raises(openai.BadRequestError, match="tools"):
        client.chat.completions.create(model="nightshift", messages=QUESTION, tools=[{"type": "function"}])  # type: ignore[call-overload]
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nightshift", input="a")


def test_completions_by_the_official_client(real: Real) -> None:
    said = real.client().completions.create(model="nightshift", prompt="The pump", max_tokens=4)
    assert said.usage and said.usage.completion_tokens <= 4
    assert said.choices[0].finish_reason in ("stop", "length")


def test_several_completions_by_the_official_client_are_those_of_each(real: Real) -> None:
    client, prompts = real.client(), ["The pump", "The valve of"]
    both = client.completions.create(model="nightshift", prompt=prompts, max_tokens=4)
    each = [client.completions.create(model="nightshift", prompt=one, max_tokens=4) for one in prompts]
    assert [one.index for one in both.choices] == [0, 1]
    assert [one.text for one in both.choices] == [one.choices[0].text for one in each]
    assert both.usage and both.usage.total_tokens == sum(one.usage.total_tokens for one in each if one.usage)
    texts = ["", ""]
    for chunk in client.completions.create(model="nightshift", prompt=prompts, max_tokens=4, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [one.text for one in both.choices]


def test_the_same_seed_says_the_same(real: Real) -> None:
    def said(seed: int) -> str:
        asked = real.client().chat.completions.create(model="nightshift", messages=QUESTION, seed=seed, temperature=1.5)
        return asked.choices[0].message.content or ""

    assert said(1) == said(1)


def test_a_second_engine_of_the_release_says_the_same(real: Real) -> None:
    served = real.served
    assert served.another is not None and served.lead_s > 0
    second = served.another()
    try:
        assert second.chat(QUESTION, 8) == served.engines[0].chat(QUESTION, 8)
        assert second.slots == served.engines[0].slots and second.headers != served.engines[0].headers
    finally:
        second.stop()


def test_an_unsigned_release_is_never_served(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "releases" / "x"
    with commit.folder(folder) as draft:
        models.system(draft / "system", ROOT, ROWS)
    digest = commit.digest(folder)
    folder.rename(folder.with_name(digest))
    follower = Follower(tmp_path, tmp_path / "home", tmp_path / "state", 1, lambda _: None)
    with pytest.raises(ReleaseInvalid, match="no signature"):
        follower.bring_up(Release("v0.1.0", "c" * 40, digest))


def test_an_engine_dies_with_its_parent(tmp_path: Path) -> None:
    system = models.system(tmp_path / "plain", ROOT, ROWS)
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
