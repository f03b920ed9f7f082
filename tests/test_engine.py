"""Engines start, keep their secret, honour what they say that they do, and stop."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import httpx
import psutil
import pytest
from safetensors.numpy import save_file

from nightshift import engine
from nightshift.completions import Chat, Completion
from nightshift.engine import Engine
from nightshift.errors import ParamsError, StorageError
from nightshift.likelihood import Model
from nightshift.serving import Engines
from tests import models
from tests.conftest import ROOT
from tests.data.conftest import section

ROWS: list[dict[str, object]] = [section("pump.md", "Pump", "The pump is oiled every Monday.")]
MESSAGES = [{"role": "user", "content": "When is the pump oiled?"}]


SECRETS = {
    "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_SESSION_TOKEN": "x", "LANGFUSE_SECRET_KEY": "x",
    "NIGHTSHIFT_SMTP_PASSWORD": "x", "NIGHTSHIFT_WEBHOOK_URL": "https://hooks.example/x", "HF_TOKEN": "x",
    "AIRFLOW__CORE__FERNET_KEY": "x", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://me:secret@db/airflow",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=x", "GOOGLE_APPLICATION_CREDENTIALS": "/key.json",
}  # fmt: skip
PLAIN = {"CUDA_VISIBLE_DEVICES": "0", "HF_HUB_CACHE": "/models", "TOKENIZERS_PARALLELISM": "false", "MONKEY": "1"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.system(tmp_path_factory.mktemp("engine") / "plain", ROOT, ROWS)


@pytest.fixture(scope="module")
def adapted(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The system with an adapter that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("engine") / "lora"
    shutil.copytree(system, folder)
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(system / "base", dtype=torch.float32)
    made = LoraConfig(r=4, lora_alpha=64, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(base, made).save_pretrained(folder / "adapter")
    return folder


@pytest.fixture(scope="module")
def openvino(system: Path) -> Iterator[Engine]:
    with engine.start(system, 1, kind="openvino") as running:
        yield running


@pytest.fixture(scope="module")
def transformers(system: Path) -> Iterator[Engine]:
    with engine.start(system, 1, kind="transformers") as running:
        yield running


@pytest.fixture(params=["openvino", pytest.param("transformers", marks=pytest.mark.long)])
def served(request: pytest.FixtureRequest) -> Engine:
    """An engine of a model of random weights."""
    running: Engine = request.getfixturevalue(request.param)
    return running


def asked(running: Engine, limit: int = 12, **more: Any) -> dict[str, Any]:
    """A whole answer."""
    body = running.body(MESSAGES, limit, **more)
    said = httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=running.headers, timeout=60)
    assert said.status_code == 200, said.text
    return dict(said.json())


def text(running: Engine, limit: int = 12, **more: Any) -> str:
    return str(asked(running, limit, **more)["choices"][0]["message"]["content"])


def streamed(running: Engine, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a stream, which ends as it must."""
    said = httpx.post(running.url + path, json=body | {"stream": True}, headers=running.headers, timeout=60).text
    assert said.rstrip().endswith("data: [DONE]") or '"finish_reason":' in said
    return [chunk for line in said.splitlines() for chunk in engine.deltas(line)]


class TestBoth:
    """What the engines of a CPU have in common."""

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

    def test_a_stream_says_the_same_and_counts_it(self, served: Engine) -> None:
        chunks = streamed(served, "/v1/chat/completions", served.body(MESSAGES, 12))
        parts = [choice["delta"].get("content") or "" for one in chunks for choice in one["choices"]]
        whole = asked(served)
        assert "".join(parts) == whole["choices"][0]["message"]["content"]
        [usage] = [one["usage"] for one in chunks if one.get("usage")]
        assert usage == whole["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        ends = [choice.get("finish_reason") for one in chunks for choice in one["choices"]]
        [finish] = filter(None, ends)
        assert finish == whole["choices"][0]["finish_reason"]

    def test_an_adapter_is_heard(self, served: Engine, adapted: Path) -> None:
        kind: Any = "transformers" if served.model != engine.NAME else "openvino"
        with engine.start(adapted, 1, kind=kind) as running:
            said = running.chat(MESSAGES, 12)
        assert said.strip() == Model.load(adapted / "base", adapted / "adapter", models.COMPUTE).generate(MESSAGES, 12)
        assert said != text(served)

    def test_the_judged_model_says_the_same(self, served: Engine, system: Path) -> None:
        assert text(served).strip() == Model.load(system / "base", None, models.COMPUTE).generate(MESSAGES, 12)

    def test_completions_are_answered_too(self, served: Engine) -> None:
        body = {"model": served.model, "prompt": "The pump", "max_tokens": 4, "temperature": 0}
        said = httpx.post(f"{served.url}/v1/completions", json=body, headers=served.headers, timeout=60).json()
        assert 1 <= said["usage"]["completion_tokens"] <= 4
        assert said["choices"][0]["finish_reason"] in ("stop", "length")
        chunks = streamed(served, "/v1/completions", body)
        parts = [choice["text"] for one in chunks for choice in one["choices"]]
        assert "".join(parts) == said["choices"][0]["text"]

    def test_it_stops_writing_when_the_asker_of_a_stream_leaves(self, served: Engine) -> None:
        left(served, stream=True)


def left(running: Engine, stream: bool) -> None:
    """Ask for a long answer and hang up once it is being written; the process must be idle within a second."""
    body = json.dumps(running.body(MESSAGES, 950, stream=stream, temperature=2.0, seed=4)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: e\r\nContent-Length: {len(body)}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in running.headers.items())
    process = psutil.Process(running.child.pid)
    before = sum(process.cpu_times()[:2])
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as leaving:
        leaving.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        if stream:
            while b'"content"' not in leaving.recv(65_536):
                pass
        else:
            while sum(process.cpu_times()[:2]) == before:
                pass
    at = time.monotonic()
    text(running, 1)  # where one is answered after another, this waits for that one's end
    assert time.monotonic() - at < 1.0


class TestOpenVino:
    """The server of ours."""

    @pytest.fixture
    def served(self, openvino: Engine) -> Engine:
        return openvino

    def test_it_accepts_what_its_bodies_hold(self, served: Engine) -> None:
        asking = {"model", "prompt", "messages", "max_tokens", "stream", "stream_options"}
        for kind in (Chat, Completion):
            assert set(kind.model_fields) - asking == served.accepts

    @pytest.mark.parametrize(
        "more",
        [{"n": 2}, {"logprobs": True}, {"stop": 5}, {"temperature": 3}, {"max_tokens": 2000}, {"model": "other"}],
    )
    def test_what_it_cannot_do_is_refused(self, served: Engine, more: dict[str, Any]) -> None:
        body = served.body(MESSAGES, 5) | more
        said = httpx.post(f"{served.url}/v1/chat/completions", json=body, headers=served.headers, timeout=60)
        assert said.status_code == 400
        assert said.json()["error"]["message"]

    def test_a_stop_sequence_is_not_in_the_text(self, served: Engine) -> None:
        drawn = {"temperature": 2.0, "seed": 3}
        whole = text(served, 40, **drawn)
        stop = whole[10:12]
        said = asked(served, 40, stop=["nowhere in it", stop], **drawn)
        assert said["choices"][0]["message"]["content"] == whole[: whole.index(stop)]
        assert said["choices"][0]["finish_reason"] == "stop"
        assert said["usage"]["completion_tokens"] < 40
        chunks = streamed(served, "/v1/chat/completions", served.body(MESSAGES, 40, stop=stop, **drawn))
        parts = [choice["delta"].get("content", "") for one in chunks for choice in one["choices"]]
        assert "".join(parts) == whole[: whole.index(stop)]

    @pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty"])
    def test_a_penalty_keeps_it_from_repeating(self, served: Engine, name: str) -> None:
        greedy = text(served)
        assert len(set(text(served, **{name: 2.0}))) > len(set(greedy))
        assert text(served, **{name: 0.0}) == greedy

    def test_without_a_seed_every_draw_is_another(self, served: Engine) -> None:
        assert len({text(served, temperature=2.0) for _ in range(3)}) == 3
        assert text(served, temperature=2.0, seed=-1) == text(served, temperature=2.0, seed=-1)

    def test_an_answer_does_not_hang_on_what_is_answered_beside_it(self, served: Engine) -> None:
        asked_for = [{"temperature": 1.0, "seed": seed} for seed in range(served.slots)]
        alone = [text(served, 30, **one) for one in asked_for]
        with ThreadPoolExecutor(served.slots) as pool:
            together = list(pool.map(lambda one: text(served, 30, **one), asked_for))
        assert together == alone

    def test_it_stops_writing_when_the_asker_of_a_whole_answer_leaves(self, served: Engine) -> None:
        left(served, stream=False)
        process = psutil.Process(served.child.pid)
        spent = sum(process.cpu_times()[:2])
        text(served, 1)
        assert sum(process.cpu_times()[:2]) - spent < 0.5

    def test_it_does_not_hold_torch(self, served: Engine) -> None:
        assert "libtorch" not in Path(f"/proc/{served.child.pid}/maps").read_text()


@pytest.mark.long
class TestTransformers:
    """The server of transformers, as a child of ours."""

    @pytest.fixture
    def served(self, transformers: Engine) -> Engine:
        return transformers

    def test_it_says_of_no_field_that_it_honours_it_which_it_does_not(self, served: Engine) -> None:
        assert served.accepts == {"temperature", "top_p", "seed"}
        greedy = text(served)
        stop = greedy[len(greedy) // 2 :][:1]
        assert stop in text(served, stop=stop)  # OpenAI: the text does not hold it
        assert text(served, presence_penalty=2.0) == greedy
        assert len(asked(served, n=2)["choices"]) == 1
        assert "logprobs" not in asked(served, logprobs=True)["choices"][0]


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
    def test_a_plain_system(self, system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (SECRETS | PLAIN).items():
            monkeypatch.setenv(name, value)
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
        assert not set(SECRETS) & set(said["environment"])
        assert said["environment"].items() >= PLAIN.items()
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


def test_the_kinds_are_those_of_the_parameter() -> None:
    assert set(engine.TRAITS) == set(get_args(engine.Kind)) == set(get_args(Engines.model_fields["kind"].annotation))


def test_lines_of_a_stream_become_chunks() -> None:
    assert list(engine.deltas('data: {"a": 1}')) == [{"a": 1}]
    assert list(engine.deltas("data: [DONE]")) == list(engine.deltas(": ping")) == []
