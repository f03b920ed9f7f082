"""The border of a stage: everything that one stage's `run` needs from outside, read in one place.

`main(run)` reads the paths from the command line and the sections that `run` asks for (by its type hints) from
params.yaml, times nothing into outs, writes `metrics/<stage>.json` from what `run` returns and one OpenTelemetry span,
and turns an error into its sentence, its exit code and an entry in the outcome file that the engine reads. It refuses
another checkout's code.

    def run(documents: Path, out: Path, params: Dedup, work: Work) -> Metrics: ...

    if __name__ == "__main__":
        stage.main(run)
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from nightshift import checkout, commit, logs, params
from nightshift.checkpoint import Shelf
from nightshift.errors import UsageError, known, tell
from nightshift.memo import Count, Memo
from nightshift.otlp import Direct, FileSink
from nightshift.segments import Segments
from nightshift.spans import FOLDER, INTERNAL, Trace, Tracer, night_of

T = TypeVar("T")
Metrics = Mapping[str, Any]
# threads of torch that wait for each other sleep, instead of holding a core in a loop: two of them beside other work
# read 330 tokens a second with a model of 135 M parameters, and 40 in a loop. Read when torch is loaded
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
log = logging.getLogger("nightshift.stage")
SERVING = "serve.json"  # in the state folder: the process of an endpoint that runs (serve/local.py)
NICE = 10  # steps of priority that a stage gives way to an endpoint by


@dataclass
class Work:
    """What a stage may use besides its inputs; none of it changes a byte of an out.

    Args:
        stage: address in dvc.yaml, like 'dedup' or 'system@plain'.
        state: folder of this machine for memo and checkpoints; None keeps nothing.
        sources: what a relative source path is relative to.
        key: digest of command, inputs and params; names this stage's checkpoints.
        count: documents computed and reused, for night.json.
        resumed_from: step from which training went on, or None.
        shared: S3 prefix where memo and checkpoints are instead, for all machines; "" for none.
    """

    stage: str
    state: Path | None = None
    sources: Path = Path()
    key: str = "alone"
    count: Count = field(default_factory=Count)
    resumed_from: int | None = None
    shared: str = ""

    def memo(self, name: str, fingerprint: Any, *code: str) -> Memo:
        """Results of the function `name`, kept as long as `fingerprint` and the files that compute it are the same."""
        sources = [commit.sha256(Path(one)) for one in code]
        place = f"{self.shared}/memo" if self.shared else self.state and self.state / "memo"
        return Memo(place, name, [fingerprint, sources], self.count)

    def checkpoints(self) -> Shelf | None:
        """Checkpoints of exactly this command, inputs and params; None where no state is kept."""
        if self.state is None:
            return None
        shared = f"{self.shared}/checkpoints/{self.key}" if self.shared else ""
        return Shelf(self.state / "checkpoints" / self.key, shared)

    def progress(self, items: Iterable[T], unit: str = "", total: int | None = None) -> Iterator[T]:
        """Pass items on, telling a terminal by a line rewritten in place, and a log by ten lines at most."""
        size = total if total is not None else (len(items) if isinstance(items, Sized) else None)
        terminal = sys.stderr.isatty()
        step = max(1, (size or 1000) // (100 if terminal else 10))
        for number, item in enumerate(items, 1):
            yield item
            if number % step == 0 or number == size:
                line = f"{number:,}{f' of {size:,}' if size else ''} {unit}".rstrip()
                if terminal:
                    print(f"\r{self.stage}: {line}", end="", file=sys.stderr, flush=True)
                else:
                    log.info(line)
        if terminal:
            print(file=sys.stderr)


def main(run: Callable[..., Metrics]) -> None:
    """Run one stage as dvc.yaml's command; exits with the error's code."""
    root = Path(os.environ.get("DVC_ROOT", ".")).resolve()
    name = os.environ.get("DVC_STAGE", Path(sys.argv[0]).stem).rpartition(":")[2]
    state, shared = checkout.state(root)
    work = Work(name, state, checkout.folder("NIGHTSHIFT_SOURCES", root), shared=shared)
    with _traced(name, checkout.folder("NIGHTSHIFT_HOME", root / "var")) as trace:
        code, outcome = _ran(run, root, work)
        said = {"outcome": outcome.get("outcome", "ran"), "code": code}
        trace.set(**said, computed=work.count.computed, reused=work.count.reused)
        trace.failed = code != 0
    if target := os.environ.get("DVC_AIRFLOW_OUTCOME"):
        with suppress(OSError):  # on a full disk the sentence on stderr and the exit code must do
            Path(target).write_text(json.dumps(outcome), encoding="utf-8")
    sys.stderr.flush()
    sys.stdout.flush()
    sys.exit(code)


def _ran(run: Callable[..., Metrics], root: Path, work: Work) -> tuple[int, dict[str, Any]]:
    """Run it and write its metrics: exit code, and what the engine is told. Raises what is a bug of ours."""
    outcome: dict[str, Any] = {}
    code = 0
    try:
        checkout.same(root)
        _yield_to_endpoint(work.state)
        keep_memory()
        os.environ |= WAITING
        arguments = _arguments(run, sys.argv[1:], work)
        metrics = run(**arguments)
        commit.file(Path("metrics") / f"{work.stage.replace('@', '/')}.json", commit.dumps(_rounded(metrics)))
    except Exception as error:
        found = known(error)
        if found is None:  # its traceback is what helps
            raise
        code = tell(work.stage, found)
        outcome = {"outcome": "storage" if found.retry else "refused", "sentence": str(found), "code": code}
    return code, outcome | {"work": vars(work.count), "resumed_from": work.resumed_from}


def _traced(name: str, home: Path) -> Trace:
    """The stage's one span: below its night's trace, in a file of the home that is there; a stage makes no home.

    Written when the stage is over, and never read by one: nothing of it is in an out.
    """
    night = os.environ.get("DVC_AIRFLOW_RUN", "")
    logs.set_up(name, run=night)
    kept = Segments(home / FOLDER, "stage")
    tracer = Tracer("nightshift-stage", [Direct(FileSink(kept))] if home.is_dir() else [])
    trace = tracer.begin("stage", INTERNAL, *night_of(night))
    trace.set(stage=name, run=night or None)
    return trace


def seed(number: int) -> None:
    """Seed Python, NumPy and torch, those that are loaded; called by stages that draw."""
    random.seed(number)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(number % 2**32)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(number)


def libraries(package: str) -> Mapping[str, str]:
    """Versions of the libraries that a lifecycle package computes with: part of a memo's fingerprint."""
    found: dict[str, dict[str, str]] = json.loads(Path("versions.json").read_text(encoding="utf-8"))
    return found[package]


def _arguments(run: Callable[..., Metrics], words: list[str], work: Work) -> dict[str, Any]:
    """Values for the parameters of `run`: words of the command for paths and names, sections for typed parameters."""
    hints = get_type_hints(run)
    values: dict[str, Any] = {}
    rest = list(words)
    for name, parameter in signature(run).parameters.items():
        hint = hints[name]
        if isinstance(hint, type) and issubclass(hint, params.Section):
            values[name] = params.load(Path(params.FILE), hint)
        elif hint is Work:
            values[name] = work
        elif hint == list[Path]:
            values[name], rest = [Path(word) for word in rest], []
        elif rest:
            values[name] = hint(rest.pop(0))
        elif parameter.default is Parameter.empty:
            raise UsageError(f"the word for {name} is missing", "", f"type `{_usage(run)}`")
    if rest:
        raise UsageError(f"{rest[0]!r} is one word too many", "", f"type `{_usage(run)}`")
    inputs = [v for v in values.values() if isinstance(v, Path)] + [
        p for v in values.values() if isinstance(v, list) for p in v
    ]
    work.key = _digest(words, [v for v in values.values() if isinstance(v, params.Section)], inputs)
    return values


def _usage(run: Callable[..., Metrics]) -> str:
    hints = get_type_hints(run)
    words = [n for n in signature(run).parameters if hints[n] in (Path, str)] + [
        f"{n}…" for n in hints if hints[n] == list[Path]
    ]
    spec = sys.modules["__main__"].__spec__
    return f"python {f'-m {spec.name}' if spec else sys.argv[0]} {' '.join(words)}"


def _digest(words: list[str], sections: list[params.Section], inputs: list[Path]) -> str:
    """Names the checkpoints of one command on one input with one set of values and one version of its code."""
    code = [
        m.__file__
        for n, m in sorted(sys.modules.items())
        if n.startswith("nightshift.") and getattr(m, "__file__", None)
    ]
    code.append(sys.argv[0])
    parts = [
        words,
        [s.model_dump(mode="json") for s in sections],
        [commit.digest(p) for p in inputs if p.is_file() or (p / commit.MANIFEST).is_file()],
        [commit.sha256(Path(p)) for p in code if p and Path(p).is_file()],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def keep_memory() -> None:
    """Let glibc keep what is freed: a step's tensors else go back to the kernel, and new pages cost a third of a step.

    Measured on two cores, 6.8 M parameters: 2,900 tokens a second without, 4,600 with. Another libc has no mallopt.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28)):
            mallopt(option, value)


def _yield_to_endpoint(state: Path | None) -> None:
    """Run at a lower priority while an endpoint serves on this machine: its users come first."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        os.kill(json.loads((Path(state or "") / SERVING).read_text(encoding="utf-8"))["pid"], 0)
        os.nice(NICE)


def _rounded(value: Any) -> Any:
    """Floats to six significant digits, so that a metric reads well and diffs only where it means something."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {str(k): _rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value
