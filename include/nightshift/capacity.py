"""How much memory so many users with so large a window take, and how many fit.

    weights = parameters × bytes of a number
    cache   = 2 × layers × key-value heads × head size × bytes of a number, for each token of each user

The cache holds a key and a value of every layer (Kwon et al. 2023, PagedAttention, §3: 2 × 5120 × 40 × 2 = 800 KB a
token for OPT-13B), one for each group of heads (Ainslie et al. 2023, GQA). Beside it stand, for the prompt that is read
right now, the activations of one block and the copy that transformers' cache makes when it grows; what an engine and
the gateway take with nothing to do; and the index. The last three were measured here and are bounds from above:

    model (bfloat16, transformers serve)         peak at 6,000 tokens over idle   2 × cache + 8 × (h + i) × 2 bytes
    h 512, i 1024, 4 layers, 8 kv heads of 64                  164 MB                          247 MB
    h 512, i 1024, 16 layers, 8 kv heads of 64                 403 MB                          541 MB
    h 1024, i 2048, 4 layers, 16 kv heads of 64                411 MB                          492 MB
    SmolLM2-135M, at 8,000 tokens                              624 MB                          639 MB

idle: 479 MB with a model of 0.1 MB, 779 MB with SmolLM2 of 269 MB; the gateway 172 MB with two sections. OpenVINO's
engine computes in float32 and holds its weights twice, as the graph's file, mapped, and as it multiplies by them; idle
it has 175 MB with a model of 0.1 MB, 1,260 MB with SmolLM2 of 538 MB in float32.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nightshift import commit
from nightshift.engine import TRAITS, Kind
from nightshift.errors import DataRefused

NUMBER = {"bfloat16": 2, "float16": 2, "float32": 4}  # bytes
MEGABYTE = 1_000_000
ENGINE, GATEWAY = 520 * MEGABYTE, 180 * MEGABYTE  # with nothing to do, beside weights and index
OPENVINO = 200 * MEGABYTE  # the same of that engine
ACTIVATIONS = 8  # numbers a token for each of hidden and feed-forward size, while a prompt is read
INDEX = 3  # an opened index over its files: vectors stand in half precision, and in single too


@dataclass(frozen=True)
class Shape:
    """What a system's configuration says of its size.

    Args:
        parameters: of base and adapter together.
        number: bytes of a weight, a key or a value.
        context: tokens that the system reads and writes, at most.
        index: bytes of the index's files.
        copies: of the weights that an engine holds.
        idle: bytes of an engine with nothing to do, beside its weights.
    """

    parameters: int
    layers: int
    kv_heads: int
    head: int
    hidden: int
    feed_forward: int
    number: int
    context: int
    index: int
    copies: int = 1
    idle: int = ENGINE

    @classmethod
    def of(cls, system: Path, kind: Kind = "openvino") -> Shape:
        """The shape of a system folder under such an engine.

        Raises DataRefused for a configuration that does not say it.
        """
        config = json.loads((system / "base" / "config.json").read_text(encoding="utf-8"))
        settings = json.loads((system / "system.json").read_text(encoding="utf-8"))
        facts = json.loads((system / "base" / "facts.json").read_text(encoding="utf-8"))
        try:
            heads = config["num_attention_heads"]
            return cls(
                parameters=facts["parameters"] + _adapter(system),
                layers=config["num_hidden_layers"],
                kv_heads=config.get("num_key_value_heads") or heads,
                head=config.get("head_dim") or config["hidden_size"] // heads,
                hidden=config["hidden_size"],
                feed_forward=config["intermediate_size"],
                number=NUMBER[TRAITS[kind].dtype or settings["dtype"]],
                context=settings["context"],
                index=sum((system / "index" / name).stat().st_size for name in commit.names(system / "index")),
                copies=2 if kind == "openvino" else 1,
                idle=OPENVINO if kind == "openvino" else ENGINE,
            )
        except KeyError as error:
            where = str(system / "base" / "config.json")
            raise DataRefused(f"it does not say {error.args[0]}", where, "plan with the numbers of its card") from None

    @property
    def weights(self) -> int:
        """Bytes of the weights in memory."""
        return self.parameters * self.number * self.copies

    @property
    def cache_a_token(self) -> int:
        """Bytes of keys and values of one token."""
        return 2 * self.layers * self.kv_heads * self.head * self.number


@dataclass(frozen=True)
class Need:
    """Bytes that users at a time take.

    Args:
        engines: processes, each with weights of its own.
        weights: of all engines.
        cache: keys and values of all users.
        reading: activations, and the cache's copy, of the prompt that each engine reads.
        overhead: engines and gateway with nothing to do.
        index: opened by the gateway.
    """

    engines: int
    weights: int
    cache: int
    reading: int
    overhead: int
    index: int

    @property
    def total(self) -> int:
        """All of it together."""
        return self.weights + self.cache + self.reading + self.overhead + self.index


def need(shape: Shape, users: int, window: int, slots: int = 1) -> Need:
    """What `users` who are answered at the same time take, each with `window` tokens; an engine answers `slots`."""
    engines = math.ceil(users / slots)
    work = window * (shape.cache_a_token + ACTIVATIONS * (shape.hidden + shape.feed_forward) * shape.number)
    return Need(
        engines=engines,
        weights=engines * shape.weights,
        cache=users * window * shape.cache_a_token,
        reading=engines * work,
        overhead=engines * shape.idle + GATEWAY,
        index=INDEX * shape.index,
    )


def fit(shape: Shape, room: int, window: int, slots: int = 1) -> int:
    """How many users fit into `room` bytes at a time; 0 when not even one does."""
    users, step = 0, 1
    while need(shape, users + step, window, slots).total <= room:
        users += step
        step *= 2
    while step > 1:
        step //= 2
        if need(shape, users + step, window, slots).total <= room:
            users += step
    return users


def engines(shape: Shape, room: int, window: int, slots: int) -> int:
    """How many whole engines fit into `room` bytes when each gives `slots` answers at a time, all of them in use."""
    return fit(shape, room, window, slots) // slots


def memory() -> int:
    """Bytes of memory that this machine gives to programs: its own, or less where a control group has a limit."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found = min(found, int(Path(limit).read_text(encoding="ascii")))
    return found


def _adapter(system: Path) -> int:
    """Parameters of an adapter, from the sizes in its file's header (safetensors: 8 bytes of length, then JSON)."""
    path = system / "adapter" / "adapter_model.safetensors"
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
