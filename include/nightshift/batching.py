"""Write many answers at a time with one OpenVINO pipeline.

The pipeline goes in steps: each reads the next part of the prompts that came (256 tokens in all) and writes a token of
every answer under way, so that a new request joins between two tokens of the others. One thread owns it. Requests and
cancellations reach the thread through a queue, tokens leave it by a callback; a cancelled answer is gone after the step
that runs. Weights, keys and values are float32: then an answer does not hang on what is answered beside it (20 of 20
answers of SmolLM2, against 17 in bfloat16), and is what the model says in float32 elsewhere. Keys and values of a
prompt are not kept for the next one: from the time to its first token one asker could tell what another one asked.
"""

from __future__ import annotations

import itertools
import os
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

TOKENS_A_STEP = 256  # of prompts: a step of these takes about as long as a token may be waited for
PRECISION = "f32"  # OpenVINO's name of the type
Finish = Literal["stop", "length", "failed"]
Tell = Callable[[Sequence[int], Finish | None], None]


@dataclass(frozen=True)
class Asked:
    """One answer to write.

    Args:
        ids: of the prompt.
        limit: tokens of the answer, at most.
        ends: ids of tokens with which it ends.
        temperature: 0 takes the likeliest token each time.
        top_p: only the likeliest tokens that make up this share are drawn from.
        seed: of the draw, 64 bits.
        frequency_penalty: subtracted from a token's logit for each time that the answer holds it.
        presence_penalty: subtracted once.
        repetition_penalty: a factor on logits of tokens that prompt or answer hold; 1 is none.
    """

    ids: Sequence[int]
    limit: int
    ends: frozenset[int]
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0


class Batch:
    """A pipeline and the thread that steps it.

    Args:
        graph: folder with a graph (graph.py).
        threads: that compute.
        slots: answers at a time.
    """

    def __init__(self, graph: Path, threads: int, slots: int) -> None:
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.max_num_seqs, scheduler.max_num_batched_tokens = slots, TOKENS_A_STEP
        scheduler.enable_prefix_caching = False
        how = {"INFERENCE_PRECISION_HINT": PRECISION, "KV_CACHE_PRECISION": PRECISION, "INFERENCE_NUM_THREADS": threads}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(str(graph), scheduler, "CPU", how)
        self._numbers = itertools.count(1)
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._writing: dict[int, tuple[Any, Tell]] = {}  # number → its handle, and whom to tell
        threading.Thread(target=self._run, name="batch", daemon=True).start()

    def ask(self, asked: Asked, tell: Tell) -> int:
        """Begin an answer; `tell` is called in the pipeline's thread, the last time with why it ended."""
        number = next(self._numbers)
        self._inbox.put(partial(self._add, number, asked, tell))
        return number

    def cancel(self, number: int) -> None:
        """Stop writing this answer, if it is not written yet; nothing more is told of it."""
        self._inbox.put(partial(self._drop, number))

    def _run(self) -> None:
        try:
            while True:
                self._attend()
                self._pipeline.step()
                for number in list(self._writing):
                    self._read(number)
        except BaseException:  # what cannot go on must not look alive: who started it starts another
            traceback.print_exc()
            os._exit(70)  # EX_SOFTWARE of sysexits.h

    def _attend(self) -> None:
        """Do what was asked for meanwhile; wait for it while there is nothing else to do."""
        while not self._inbox.empty() or not self._pipeline.has_non_finished_requests():
            self._inbox.get()()

    def _add(self, number: int, asked: Asked, tell: Tell) -> None:
        import numpy as np
        import openvino

        ids = openvino.Tensor(np.array([asked.ids], dtype=np.int64))
        try:
            handle = self._pipeline.add_request(number, ids, _generation(asked))
        except RuntimeError:
            traceback.print_exc()
            tell([], "failed")
        else:
            self._writing[number] = handle, tell

    def _drop(self, number: int) -> None:
        if found := self._writing.pop(number, None):
            found[0].cancel()

    def _read(self, number: int) -> None:
        """Tell what was written of one answer since the last step."""
        from openvino_genai import GenerationFinishReason as Reason
        from openvino_genai import GenerationStatus as Status

        ended: dict[Any, Finish] = {Reason.STOP: "stop", Reason.LENGTH: "length"}
        handle, tell = self._writing[number]
        ids: list[int] = []
        finish: Finish | None = None
        while handle.can_read():
            for one in handle.read().values():
                ids += one.generated_ids
                finish = ended.get(one.finish_reason)
        if finish is None and handle.get_status() not in (Status.RUNNING, Status.FINISHED):
            finish = "failed"  # no memory for its keys and values
        if finish:
            del self._writing[number]
        if ids or finish:
            tell(ids, finish)


def _generation(asked: Asked) -> Any:
    """The request as OpenVINO is told it. Raises RuntimeError for a value that it does not take."""
    import openvino_genai

    made = openvino_genai.GenerationConfig()
    made.max_new_tokens, made.stop_token_ids = asked.limit, set(asked.ends)
    if asked.ends:
        made.eos_token_id = min(asked.ends)  # it wants to be told of one of them, else it adds one that is none
    made.ignore_eos = not asked.ends
    made.frequency_penalty, made.presence_penalty = asked.frequency_penalty, asked.presence_penalty
    made.repetition_penalty = asked.repetition_penalty
    made.do_sample = asked.temperature > 0
    if made.do_sample:
        made.temperature, made.top_p, made.rng_seed = asked.temperature, asked.top_p, asked.seed
    return made
