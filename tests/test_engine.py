"""Engines start, keep their secret, honour what they say that they do, and stop."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from safetensors.numpy import save_file

from nightshift import engine
from nightshift.engine import Engine
from nightshift.errors import ParamsError, StorageError
from tests import models
from tests.conftest import ROOT
from tests.data.conftest import section

ROWS: list[dict[str, object]] = [section("pump.md", "Pump", "The pump is oiled every Monday.")]
MESSAGES = [{"role": "user", "content": "When is the pump oiled?"}]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.system(tmp_path_factory.mktemp("engine") / "plain", ROOT, ROWS)


@pytest.fixture(scope="module")
def served(system: Path) -> Iterator[Engine]:
    """transformers' server of a model of random weights."""
    with engine.start(system, 1, kind="transformers") as running:
        yield running


def asked(running: Engine, limit: int = 12, **more: Any) -> dict[str, Any]:
    """A whole answer."""
    body = running.body(MESSAGES, limit, **more)
    said = httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=running.headers, timeout=60)
    assert said.status_code == 200, said.text
    return dict(said.json())


def text(running: Engine, limit: int = 12, **more: Any) -> str:
    return str(asked(running, limit, **more)["choices"][0]["message"]["content"])


class TestTransformers:
    """The server of transformers, as a child of ours."""

    def test_its_secret_is_its_own_and_nowhere_to_be_read(self, served: Engine) -> None:
        secret = served.headers["Authorization"].removeprefix("Bearer ")
        assert len(secret) >= 43
        assert secret not in " ".join(psutil.Process(served.child.pid).cmdline())
        assert secret not in repr(served)
        for headers in ({}, {"Authorization": "Bearer no"}):
            for path in ("/health", "/v1/models"):
                assert httpx.get(served.url + path, headers=headers).status_code == 401
            assert httpx.post(f"{served.url}/load_model", json={"model": "x"}, headers=headers).status_code == 401

    def test_nothing_but_answers_is_reached_with_it(self, served: Engine) -> None:
        assert httpx.get(f"{served.url}/health", headers=served.headers).is_success
        assert httpx.get(f"{served.url}/v1/models", headers=served.headers).status_code == 404
        assert httpx.post(f"{served.url}/reset", headers=served.headers).status_code == 404

    def test_a_temperature_counts_and_a_seed_repeats_it(self, served: Engine) -> None:
        drawn = [text(served, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
        assert drawn[0] == drawn[1] != drawn[2]
        assert text(served) not in drawn
        assert text(served) == served.chat(MESSAGES, 12)

    def test_top_p_counts(self, served: Engine) -> None:
        assert text(served, temperature=1.5, seed=1, top_p=1e-6) == text(served)

    def test_it_says_of_no_field_that_it_honours_it_which_it_does_not(self, served: Engine) -> None:
        assert served.accepts == {"temperature", "top_p", "seed"}
        greedy = text(served)
        stop = greedy[len(greedy) // 2 :][:1]
        assert stop in text(served, stop=stop)  # OpenAI: the text does not hold it
        assert text(served, presence_penalty=2.0) == greedy
        assert len(asked(served, n=2)["choices"]) == 1
        assert "logprobs" not in asked(served, logprobs=True)["choices"][0]

    def test_completions_are_answered_too(self, served: Engine) -> None:
        body = {"model": served.model, "prompt": "The pump", "max_tokens": 4, "temperature": 0}
        said = httpx.post(f"{served.url}/v1/completions", json=body, headers=served.headers, timeout=60).json()
        assert said["usage"]["completion_tokens"] <= 4
        assert said["choices"][0]["finish_reason"] in ("stop", "length")

    def test_it_stops_writing_when_the_asker_of_a_stream_leaves(self, served: Engine) -> None:
        body = json.dumps(served.body(MESSAGES, 1800, stream=True, temperature=1.0)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in served.headers.items())
        with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as leaving:
            leaving.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            while b'"content"' not in leaving.recv(65_536):
                pass
        left = time.monotonic()
        text(served, 1)  # it answers one after another: so this waits for that one's end
        assert time.monotonic() - left < 1.0


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program vllm, on PATH."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\n" + (ROOT / "tests" / "fake_vllm.py").read_text())
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


class TestVllm:
    """vLLM's command line and protocol; the program itself needs a GPU."""

    @pytest.mark.usefixtures("vllm")
    def test_a_plain_system(self, system: Path) -> None:
        with engine.start(system, 1, kind="vllm") as running:
            said = json.loads(running.chat(MESSAGES, 5))
            secret = running.headers["Authorization"].removeprefix("Bearer ")
            for path in ("/v1/chat/completions", "/invocations"):
                assert httpx.post(running.url + path, json={}).status_code == 401
            assert httpx.post(f"{running.url}/invocations", headers=running.headers).status_code == 404
        argv = said["argv"]
        assert argv[:2] == ["serve", str((system / "base").resolve())]
        assert argv[argv.index("--served-model-name") + 1] == running.model
        assert argv[argv.index("--max-model-len") + 1] == "1024"
        assert argv[argv.index("--dtype") + 1] == "float32"
        assert "--enable-lora" not in argv
        assert not any(secret in word for word in argv)
        assert said["environment"]["VLLM_API_KEY"] == secret
        assert said["environment"]["VLLM_NO_USAGE_STATS"] == "1"
        assert said["asked"]["temperature"] == 0
        assert running.slots > 1
        assert running.accepts > {"temperature", "top_p", "seed", "stop", "n", "logprobs", "response_format"}

    @pytest.mark.usefixtures("vllm")
    def test_an_adapter_is_a_model_beside_its_base(self, system: Path, tmp_path: Path) -> None:
        (tmp_path / "lora" / "adapter").mkdir(parents=True)
        (tmp_path / "lora" / "base").symlink_to(system / "base")
        (tmp_path / "lora" / "system.json").write_text((system / "system.json").read_text())
        (tmp_path / "lora" / "adapter" / "adapter_config.json").write_text(json.dumps({"r": 12}))
        save_file({}, tmp_path / "lora" / "adapter" / "adapter_model.safetensors")
        with engine.start(tmp_path / "lora", 1, kind="vllm") as running:
            argv = json.loads(running.chat(MESSAGES, 5))["argv"]
        modules = json.loads(argv[argv.index("--lora-modules") + 1])
        assert modules == {"name": running.model, "path": str((tmp_path / "lora" / "adapter").resolve())}
        assert argv[argv.index("--max-lora-rank") + 1] == "16"
        assert argv[argv.index("--served-model-name") + 1] != running.model

    @pytest.mark.usefixtures("vllm")
    def test_it_ends_whole_when_it_is_stopped(self, system: Path) -> None:
        running = engine.start(system, 1, kind="vllm")
        family = [psutil.Process(running.child.pid), *psutil.Process(running.child.pid).children(recursive=True)]
        assert len(family) == 2
        running.stop()
        _, alive = psutil.wait_procs(family, timeout=5)  # a killed process is gone a moment later
        assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
        assert not running.scratch.exists()

    @pytest.mark.usefixtures("vllm")
    def test_it_ends_when_the_leash_does(self, system: Path) -> None:
        running = engine.start(system, 1, kind="vllm")
        family = psutil.Process(running.child.pid).children(recursive=True)
        assert running.child.stdin
        running.child.stdin.close()
        gone, alive = psutil.wait_procs(family, 10)
        assert gone and not alive
        assert running.child.wait(10) == -9
        running.stop()

    def test_without_the_program_it_says_what_to_do(self, system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(ParamsError, match="vllm is not on PATH"):
            engine.start(system, 1, kind="vllm")


@pytest.mark.usefixtures("vllm")
def test_what_does_not_start_says_the_end_of_its_log(system: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "base").symlink_to(system / "base")
    said = json.loads((system / "system.json").read_text())
    (tmp_path / "broken" / "system.json").write_text(json.dumps(said | {"dtype": "int3"}))
    with pytest.raises(StorageError, match="invalid choice: 'int3'"):
        engine.start(tmp_path / "broken", 1, kind="vllm")


def test_a_base_cannot_say_how_requests_are_sampled(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    own = {"do_sample": False, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1, "eos_token_id": [2, 3]}
    (tmp_path / "base" / "generation_config.json").write_text(json.dumps(own))
    engine._generation(tmp_path / "base", tmp_path)
    said = json.loads((tmp_path / "generation_config.json").read_text())
    assert said == {"repetition_penalty": 1.1, "eos_token_id": [2, 3], "do_sample": True, "top_k": 0}


def test_lines_of_a_stream_become_chunks() -> None:
    assert list(engine.deltas('data: {"a": 1}')) == [{"a": 1}]
    assert list(engine.deltas("data: [DONE]")) == list(engine.deltas(": ping")) == []
