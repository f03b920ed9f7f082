"""Whether a model can read a request whole, before it waits for its turn."""

from __future__ import annotations

from nightshift.serve.refused import Refused
from nightshift.serve.request import Sampled
from nightshift.serve.served import Served
from nightshift.window import TURN

LONGEST_TOKEN = 32  # characters; no text has tokens that are that long on average


def length(asked: Sampled, served: Served) -> int:
    """Tokens of the answer, at most."""
    settings = served.system.settings
    return min(asked.limit or settings["max_new_tokens"], settings["context"])


def may_fit(served: Served, texts: list[str], limit: int, field: str) -> None:
    """Raises Refused for texts so long that nothing need be made of them to know that they do not fit."""
    context = served.system.settings["context"]
    if sum(map(len, texts)) > LONGEST_TOKEN * context:
        raise _too_long(context, "far more", limit, field)


def fits(served: Served, texts: list[str], limit: int, field: str) -> int:
    """Tokens that the model reads of a request's field. Raises Refused for what it could not read whole."""
    context = served.system.settings["context"]
    read = sum(served.system.length(one) + TURN for one in texts)
    if read + limit > context:
        raise _too_long(context, str(read), limit, field)
    return read


def _too_long(context: int, read: str, limit: int, field: str) -> Refused:
    message = f"The model reads {context} tokens; this asks for {read} and an answer of {limit}."
    return Refused("context_length_exceeded", message, field)
