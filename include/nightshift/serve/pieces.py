"""What an engine says, piece by piece, however it was asked for: one way for a stream and for a whole answer.

So a client that leaves ends the engine's work in both, the time to the first token is known in both, and an answer that
broke off is never taken for one that ended: an engine that does not say why it stopped did not stop.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from nightshift.attributes import FINISHED
from nightshift.engine import Engine, deltas
from nightshift.serve.refused import Refused
from nightshift.serve.wire import Broken, Wire, Wires

VALUES = {400, 422}  # statuses by which an engine says that a value is wrong; of any other the caller knows nothing


@dataclass(frozen=True)
class Piece:
    """A part of an answer.

    Args:
        index: of the choice.
        text: may be empty.
        finish: why the choice ends with this piece; None while it goes on.
        usage: the engine's count of tokens, where it says one.
        more: other fields of the choice's delta (tool calls), as the engine said them.
        tokens: chunks of the engine that its text came in.
    """

    index: int = 0
    text: str = ""
    finish: str | None = None
    usage: dict[str, int] | None = None
    more: dict[str, Any] | None = None
    tokens: int = 0


@dataclass(frozen=True)
class Patience:
    """How long an engine may take, seconds; `short` where its asker has less time than that."""

    first_token_s: float
    total_s: float
    short: bool = False

    def within(self, left_s: float) -> Patience:
        """The same, and no longer than this."""
        return Patience(min(self.first_token_s, left_s), min(self.total_s, left_s), left_s < self.total_s)


def gap(first: float | None, last: float, tokens: int) -> float | None:
    """The mean seconds between two tokens of an answer; None for one of fewer."""
    return (last - first) / (tokens - 1) if first is not None and tokens > 1 else None


async def pieces(
    wires: Wires,
    engine: Engine,
    path: str,
    asked: dict[str, Any],
    patience: Patience,
    headers: dict[str, str] | None = None,
    gathered: bool = False,
    chosen: Sequence[str] = (),
) -> AsyncGenerator[Piece]:
    """Ask an engine and go through what it says; to stop early, close this: the engine then stops too.

    `gathered` gives what comes after the first piece at once, for an answer that nobody reads before its end; `chosen`
    are the fields whose values are the caller's own. Raises Refused: `engine_error` when it breaks off or makes no
    sense, `engine_timeout` when it takes too long, `invalid_value` when it will not have what the caller chose. The
    engine remembers how often it was asked in vain.
    """
    begun, begins, ended = asyncio.get_running_loop().time(), False, False
    sent = json.dumps(asked | {"model": engine.model, "stream": True}).encode()
    wire: Wire | None = None
    try:
        deadline = begun + patience.first_token_s
        wire = await wires.ask(engine.url, path, sent, engine.headers | (headers or {}), deadline)
        rest = b""
        while read := await wire.read(gathered and begins):
            if wire.status != 200:
                raise _vain(engine, _unwilling(wire.status, chosen))
            *lines, rest = (rest + read).split(b"\n")
            for piece in _joined([piece for line in lines for piece in _read(line)]):
                if not begins:
                    begins = True
                    wire.until(begun + patience.total_s)
                ended = ended or piece.finish is not None
                yield piece
    except TimeoutError:
        what = "took too long; ask for a shorter one" if begins else "did not begin in time; ask again"
        late = Refused("engine_timeout", f"The answer {what}.")
        raise late if patience.short else _vain(engine, late) from None
    except (Broken, ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise _vain(engine, _broken()) from None
    finally:
        if wire is not None:
            wires.give_back(engine.url, wire)
    if not ended:
        raise _vain(engine, _unwilling(wire.status, chosen))
    engine.unanswered = 0


def _read(line: bytes) -> list[Piece]:
    """The pieces in one line of a server-sent stream. Raises ValueError and its like for one that makes no sense."""
    made = []
    for chunk in deltas(line.decode().strip()):
        made += [_piece(one) for one in chunk.get("choices") or []]
        if usage := chunk.get("usage"):
            made.append(Piece(usage={name: n for name, n in usage.items() if isinstance(n, int)}))
    return made


def _joined(found: list[Piece]) -> list[Piece]:
    """Pieces that came together, as few: a busy gateway cleans and sends a choice's text once, not token by token."""
    made: list[Piece] = []
    for one in found:
        last = made[-1] if made else None
        if last and last.index == one.index and not (last.finish or last.usage or last.more or one.usage or one.more):
            made[-1] = Piece(one.index, last.text + one.text, one.finish, tokens=last.tokens + one.tokens)
        else:
            made.append(one)
    return made


def _piece(choice: dict[str, Any]) -> Piece:
    delta = choice.get("delta") or {}
    text = delta.get("content") if "delta" in choice else choice.get("text")
    finish = choice.get("finish_reason")
    if finish is not None and finish not in FINISHED:
        raise ValueError("an engine ended for a reason that is none")
    more = {name: value for name, value in delta.items() if name not in ("role", "content") and value}
    return Piece(int(choice.get("index", 0)), str(text or ""), finish, None, more or None, int(bool(text)))


def _unwilling(status: int, chosen: Sequence[str]) -> Refused:
    """An engine did not answer with 200, or with nothing.

    What it says is wrong with a request is the caller's where the caller chose anything of it but the question's words:
    an engine that will not have a plain question is broken.
    """
    if status not in VALUES or not chosen:
        return _broken()
    named = ", ".join(f"'{name}'" for name in chosen)
    message = f"The model does not take the value of {named if len(chosen) == 1 else f'one of {named}'}."
    return Refused("invalid_value", message, chosen[0] if len(chosen) == 1 else None)


def _vain(engine: Engine, refused: Refused) -> Refused:
    """Why there is no whole answer, counted unless the caller is to blame."""
    engine.unanswered += refused.code != "invalid_value"
    return refused


def _broken() -> Refused:
    return Refused("engine_error", "The engine gave no whole answer; ask again.")
