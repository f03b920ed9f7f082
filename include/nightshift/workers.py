"""Copies of a model that are asked side by side, each in a process of its own.

A small model does not fill two cores: its steps are too short to be shared, and two threads of one process wait for
each other whenever something else takes a core. Copies with fewer threads each do not. What an answer is hangs on its
question and on the threads of one copy, never on how many copies there are or which of them was asked.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from nightshift.stage import keep_memory

M = TypeVar("M")
T = TypeVar("T")
R = TypeVar("R")
WORTH = 8  # questions for each copy from which starting its process pays

_model: Any = None  # of this process, in a worker
_failed: Exception | None = None


def ask(
    load: Callable[..., M], given: Sequence[Any], question: Callable[[M, T], R], todo: Sequence[T], workers: int
) -> Iterator[R]:
    """The answer to each of `todo`, in order.

    What `load` or `question` raises is raised here. A worker that is ended from outside (out of memory, say) ends this
    process in the same way: whoever started it has to see that.

    Args:
        load: makes a copy from `given`; it sets its own threads. Like `question` it stands at the top of a module, and
            `given` can be pickled, since other processes must find them.
        question: from a copy and one of `todo` to its answer.
        todo: what to ask.
        workers: copies at most; with few questions one, in this process.
    """
    if not todo:
        return
    if workers == 1 or len(todo) < WORTH * workers:
        model = load(*given)
        yield from (question(model, one) for one in todo)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(workers, context, _start, (load, given)) as pool:
        try:
            yield from pool.map(_ask, [question] * len(todo), todo)
        except BrokenProcessPool:
            os.kill(os.getpid(), signal.SIGKILL)


def _start(load: Callable[..., Any], given: Sequence[Any]) -> None:
    """Make this worker's copy; a failure is kept for the first question, which can tell it."""
    global _model, _failed
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_memory()
    try:
        _model = load(*given)
    except Exception as error:
        _failed = error


def _end_with_parent() -> None:
    """A copy whose parent was killed would wait for questions for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _ask(question: Callable[[Any, T], R], one: T) -> R:
    if _failed is not None:
        raise _failed
    return question(_model, one)
