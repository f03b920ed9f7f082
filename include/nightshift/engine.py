"""Start a system's model as a server of its own, ask it, and stop it.

An engine is a child process on loopback, on a leash (child.py) and behind a secret of its own (guard.py). There are
three kinds:

    openvino      a server of ours around OpenVINO's pipeline (completions.py): many answers at a time on a CPU
    transformers  the server of that library: one answer after another, of any model that it can load
    vllm          a program of another environment, found on PATH: many answers at a time on a GPU

All stop writing when the asker of a stream leaves; transformers' does not when the answer was asked for in one piece,
so what may have to be cancelled is asked for as a stream. `accepts` is what an engine does as OpenAI's reference says
it. transformers' server takes more and does something else: `stop` stays in the text, `frequency_penalty` multiplies
what the prompt holds too, `n` and `presence_penalty` are ignored.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import httpx

from nightshift.errors import ParamsError, StorageError
from nightshift.guard import SECRET
from nightshift.port import unused
from nightshift.stage import WAITING

Kind = Literal["openvino", "transformers", "vllm"]
NAME = "release"  # of the model, to an engine that takes a name
ANSWER_WITHIN_S = 120.0
STOPPED_WITHIN_S = 5.0
# what a base's own generation_config.json may say about sampling: requests say it here, and nobody else
SAMPLING = {"do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "max_length", "max_new_tokens"}
# words of a name, or the password of an address, by which a variable opens something: an engine has use for none
OPENS = re.compile(r"(?:^|_)(?:KEYS?|SECRETS?|TOKENS?|PASS(?:WORD|WD)?|CREDENTIALS?|AUTH|HEADERS|WEBHOOK)(?:_|$)", re.I)
WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM takes as --max-lora-rank (vllm/config/lora.py, 0.33)


@dataclass(frozen=True)
class Traits:
    """What holds for all engines of a kind.

    Args:
        slots: answers at a time.
        accepts: fields of a request, beside messages or prompt, max_tokens and stream, that it honours.
        ready_within_s: from its start to its first answer.
        dtype: that it computes in; None is the system's own.
    """

    slots: int
    accepts: frozenset[str]
    ready_within_s: float
    dtype: Literal["float32"] | None = None


SAMPLED = frozenset({"temperature", "top_p", "seed"})
_CONTENT = {"stop", "frequency_penalty", "presence_penalty"}
TRAITS: Mapping[Kind, Traits] = {
    "openvino": Traits(16, SAMPLED | _CONTENT, 300.0, "float32"),
    "transformers": Traits(1, SAMPLED, 180.0),
    # vllm/entrypoints/openai/{chat_completion,completion}/protocol.py, 0.33; tools would need a parser for each model
    "vllm": Traits(64, SAMPLED | _CONTENT | {"logit_bias", "n", "logprobs", "top_logprobs", "response_format"}, 900.0),
}


@dataclass
class Engine:
    """A running server. Use it as a context manager, or call `stop`.

    Args:
        child: its process, the leader of a group.
        url: where it listens, without a path.
        model: what a request's `model` has to be; may be a path, and is for no one else to see.
        scratch: a folder that goes with it.
        headers: that a request needs; they hold its secret.
        slots: answers at a time.
        accepts: fields of a request, beside messages or prompt, max_tokens and stream, that it honours.
        unanswered: how often it was asked in vain since it last gave a whole answer.
    """

    child: subprocess.Popen[bytes]
    url: str
    model: str
    scratch: Path
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    slots: int = 1
    accepts: frozenset[str] = SAMPLED
    unanswered: int = 0

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.child.poll() is None

    def body(self, messages: Sequence[dict[str, str]], max_new_tokens: int, **more: Any) -> dict[str, Any]:
        """The request for a greedy answer, unless `more` says otherwise."""
        asked = {"model": self.model, "messages": list(messages), "max_tokens": max_new_tokens, "temperature": 0}
        return asked | more

    def chat(self, messages: Sequence[dict[str, str]], max_new_tokens: int) -> str:
        """The greedy answer. Raises StorageError when the engine does not give one."""
        try:
            asked = self.body(messages, max_new_tokens)
            url = f"{self.url}/v1/chat/completions"
            said = httpx.post(url, json=asked, headers=self.headers, timeout=ANSWER_WITHIN_S)
            said.raise_for_status()
            return str(said.json()["choices"][0]["message"]["content"])
        except (httpx.HTTPError, KeyError, ValueError) as error:
            raise StorageError(f"the engine gave no answer ({error})", self.url, "look at its log") from None

    def kill(self) -> None:
        """End the process at once, and wait for nothing: of one that is being started, who starts it does the rest."""
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the process and remove its scratch folder."""
        with suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.child.wait(STOPPED_WITHIN_S)
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def start(
    system: Path,
    threads: int,
    device: str = "cpu",
    kind: Kind = "openvino",
    cache: Path | None = None,
    begun: Callable[[Engine], None] = lambda engine: None,
) -> Engine:
    """Serve the model of a system folder, and wait until it answered once.

    Args:
        device: of transformers' server; the other kinds have one each.
        cache: where graphs are kept for the next start; None makes one for this start alone.
        begun: is told of the engine before it answers, so that `kill` can end the wait; what it raises ends it too.

    Raises StorageError when it does not answer, ParamsError when the kind's program is not there.
    """
    if kind == "vllm" and shutil.which("vllm") is None:
        do = "install vLLM in an environment of its own and put its bin folder on PATH, or choose another kind"
        raise ParamsError("the program vllm is not on PATH", "serve.engine.kind", do)
    scratch = Path(tempfile.mkdtemp(prefix="nightshift-engine-"))
    port, secret = unused(), secrets.token_urlsafe(32)
    if kind == "openvino":
        model, words = NAME, _openvino(system, cache or scratch / "graphs", port, threads)
    elif kind == "vllm":
        model, words = NAME, _vllm(system, scratch, port)
    else:
        model = str(_folder(system, scratch))
        words = _transformers(system, model, port, device)
    out = (scratch / "engine.log").open("wb")
    child = subprocess.Popen(
        [sys.executable, "-m", "nightshift.child", *words],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=out,
        env=_around(threads, secret),
        start_new_session=True,
    )
    out.close()
    traits, headers = TRAITS[kind], {"Authorization": f"Bearer {secret}"}
    engine = Engine(child, f"http://127.0.0.1:{port}", model, scratch, headers, traits.slots, traits.accepts)
    try:
        begun(engine)
        _until_ready(engine, traits.ready_within_s, scratch / "engine.log")
    except BaseException:
        engine.stop()
        raise
    return engine


def deltas(line: str) -> Iterator[dict[str, Any]]:
    """The chunk that one line of a server-sent stream holds, if any."""
    if line.startswith("data: ") and line != "data: [DONE]":
        yield json.loads(line.removeprefix("data: "))


def _openvino(system: Path, cache: Path, port: int, threads: int) -> list[str]:
    """The words after `nightshift.child` for a server of ours."""
    sizes = [port, _settings(system)["context"], threads, TRAITS["openvino"].slots]
    return ["openvino", str(system.resolve()), str(cache), NAME, *map(str, sizes)]


def _transformers(system: Path, model: str, port: int, device: str) -> list[str]:
    """The words for transformers' server."""
    words = ["transformers", "serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", device]
    return [*words, "--dtype", _settings(system)["dtype"], "--default-seed", "0"]


def _vllm(system: Path, scratch: Path, port: int) -> list[str]:
    """The words for vLLM; an adapter is a model of its own beside the base. The secret is in the environment."""
    base, adapter, settings = (system / "base").resolve(), system / "adapter", _settings(system)
    _generation(base, scratch)
    words = ["run", "vllm", "serve", str(base), "--host", "127.0.0.1", "--port", str(port), "--seed", "0"]
    words += ["--dtype", settings["dtype"], "--max-model-len", str(settings["context"])]
    words += ["--max-num-seqs", str(TRAITS["vllm"].slots), "--generation-config", str(scratch)]
    words += ["--middleware", "nightshift.guard.Guard"]
    words += ["--enable-force-include-usage", "--disable-uvicorn-access-log"]
    if not adapter.is_dir():
        return [*words, "--served-model-name", NAME]
    rank = int(json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    room = next((one for one in LORA_RANKS if one >= rank), rank)
    named = json.dumps({"name": NAME, "path": str(adapter.resolve())})
    words += ["--served-model-name", "base", "--enable-lora", "--max-loras", "1", "--max-lora-rank", str(room)]
    return [*words, "--lora-modules", named]


def _settings(system: Path) -> dict[str, Any]:
    return dict(json.loads((system / "system.json").read_text(encoding="utf-8")))


def _around(threads: int, secret: str) -> dict[str, str]:
    """The environment of an engine: this package first on its path, its own secret and no other, nothing fetched."""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
    own = {SECRET: secret, "VLLM_API_KEY": secret, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    own |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return {name: value for name, value in os.environ.items() if not _opens(name, value)} | WAITING | own


def _opens(name: str, value: str) -> bool:
    """Whether a variable of the environment opens something elsewhere."""
    return bool(OPENS.search(name) or WITH_PASSWORD.search(value))


def _folder(system: Path, scratch: Path) -> Path:
    """What transformers loads: one folder with the base's files, and the adapter's where there is one."""
    base, adapter = (system / "base").resolve(), system / "adapter"
    folder = scratch / "model"
    folder.mkdir()
    for file in [*base.iterdir(), *(adapter.resolve().iterdir() if adapter.is_dir() else ())]:
        if file.is_file() and file.name not in ("manifest.json", "generation_config.json"):
            (folder / file.name).symlink_to(file)
    _generation(base, folder)
    return folder


def _generation(base: Path, out: Path) -> None:
    """Write the generation_config.json that lets a request's temperature count, and its own top_p alone.

    Without `do_sample` a temperature changes nothing, and without `top_k` transformers keeps the 50 likeliest tokens.
    """
    path = base / "generation_config.json"
    own = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept = {name: value for name, value in own.items() if name not in SAMPLING}
    said = json.dumps(kept | {"do_sample": True, "top_k": 0})
    (out / "generation_config.json").write_text(said, encoding="utf-8")


def _until_ready(engine: Engine, within_s: float, log: Path) -> None:
    """Wait for one real answer: a server that listens may still not have its model."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline and engine.alive:
        with suppress(httpx.TransportError):
            if httpx.get(f"{engine.url}/health", headers=engine.headers, timeout=5).is_success:
                engine.chat([{"role": "user", "content": "Hello"}], 1)
                return
        time.sleep(0.2)
    code = engine.child.poll()
    said = log.read_text(errors="replace").strip()[-400:] if log.is_file() else ""
    tail = said or ("it said nothing" if code is None else f"it ended with {code} and said nothing")
    # a busy machine, no memory, a port that was taken meanwhile: a signed release is rarely what is wrong
    do = "give it memory and time; if it never starts, assign another release"
    raise StorageError(f"its engine did not start: {tail}", engine.model, do)
