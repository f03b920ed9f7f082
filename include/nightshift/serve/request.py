"""What may be asked of the endpoint: one type for each kind of body, as OpenAI's API names the fields.

A field that could change an answer is honoured or refused by name, never ignored: `Chat.passed` says which of an
engine's own fields a request uses. Fields that label a request (`user`, `metadata`, …) are taken and change nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from nightshift.serve.body import Body
from nightshift.serve.refused import Refused

MODEL = "nightshift"  # the name that clients ask for: the release behind it changes every night
BARE = "nightshift-bare"  # the same without looking for sections: a client brings its own
EMBEDDINGS = "nightshift-embeddings"
MAX_STOPS, MAX_STOP = 4, 64  # sequences, and characters of one
MAX_INPUTS = 256  # texts in one request for embeddings
MAX_PROMPTS = 20  # texts in one request for completions: what LangChain sends at a time
# a value with which a field changes nothing
NEUTRAL: dict[str, list[Any]] = {
    "n": [1],
    "best_of": [1],
    "logprobs": [False],
    "top_logprobs": [0],
    "presence_penalty": [0],
    "frequency_penalty": [0],
    "echo": [False],
    "suffix": [""],
    "store": [False],
    "tools": [[]],
    "functions": [[]],
    "tool_choice": ["none", "auto"],
    "function_call": ["none", "auto"],
    "parallel_tool_calls": [True, False],
    "logit_bias": [{}],
    "response_format": [{"type": "text"}],
    "modalities": [["text"]],
    "service_tier": ["auto", "default"],
}

# fields whose every value that is let in is one for every engine
CHECKED = frozenset({"temperature", "top_p", "seed", "frequency_penalty", "presence_penalty"})

Text = Annotated[str, Field(min_length=1)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP)]


class Part(Body):
    """A piece of a turn."""

    type: Literal["text"]
    text: str


class Turn(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    name: str | None = Field(default=None, max_length=64)
    # an answer that is taken back as a turn has these, empty: `messages.append(answer.choices[0].message)`
    refusal: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None
    function_call: None = None
    audio: None = None

    @property
    def text(self) -> str:
        """Its content as one text."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content)


class StreamOptions(Body):
    """What a stream also says."""

    include_usage: bool = False
    include_obfuscation: bool = False


class Sampled(Body):
    """What a request for text may say beside its text; None is the release's own setting."""

    model: Text = Field(json_schema_extra={"enum": [MODEL, BARE]})
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | list[Stop] | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    n: int | None = Field(default=None, ge=1, le=4)
    logit_bias: dict[str, float] | None = None
    user: str | None = Field(default=None, max_length=256)

    OURS: ClassVar[frozenset[str]] = frozenset(
        {"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "user", "nightshift"}
    )
    LABELS: ClassVar[frozenset[str]] = frozenset({"metadata", "safety_identifier", "prompt_cache_key"})

    @field_validator("stop")
    @classmethod
    def _few(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) > MAX_STOPS:
            raise ValueError(f"holds at most {MAX_STOPS} sequences")
        return value

    @property
    def stops(self) -> list[str]:
        """The sequences at which an answer ends."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])

    @property
    def usage(self) -> bool:
        """Whether a stream ends with a chunk that counts tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def limit(self) -> int | None:
        """Tokens of the answer, at most."""
        return self.max_tokens

    def passed(self, accepts: frozenset[str]) -> dict[str, Any]:
        """The fields that the engine is given, of those that it accepts.

        Raises Refused for one that it does not, unless its value changes nothing.
        """
        if self.stream_options and self.stream_options.include_obfuscation:
            raise _unsupported("stream_options.include_obfuscation")
        given = {}
        for name, value in self._chosen():
            if name in accepts:
                given[name] = value
            elif not _neutral(name, value):
                raise _unsupported(name)
        return given

    def chosen(self, given: Collection[str]) -> list[str]:
        """Of the fields that an engine is given, those that it may find something wrong with."""
        return sorted({name for name, _ in self._chosen() if name in given} - CHECKED)

    def _chosen(self) -> Iterator[tuple[str, Any]]:
        """Fields that were given a value and may change an answer."""
        said = self.model_dump(exclude_unset=True, exclude_none=True)
        shaping = said.keys() - self.OURS - self.LABELS - self._asking()
        yield from sorted((name, said[name]) for name in shaping)

    def _asking(self) -> set[str]:
        """The field that holds the question."""
        return {"prompt"}


class Own(Body):
    """What only this endpoint knows."""

    sections: bool = Field(default=True, description="Whether it is answered from sections; false brings its own")


class Chat(Sampled):
    """POST /v1/chat/completions."""

    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=5)
    reasoning_effort: str | None = None
    verbosity: str | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    service_tier: str | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = Field(default=None, max_length=256)
    prompt_cache_key: str | None = Field(default=None, max_length=256)
    nightshift: Own = Field(default_factory=Own)

    @field_validator("messages")
    @classmethod
    def _asks(cls, value: list[Turn]) -> list[Turn]:
        if value[-1].role != "user":
            raise ValueError("ends with another turn than the user's")
        return value

    @property
    def limit(self) -> int | None:
        """Tokens of the answer, at most."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def looks_up(self) -> bool:
        """Whether sections are looked for."""
        return self.nightshift.sections and self.model != BARE

    def passed(self, accepts: frozenset[str]) -> dict[str, Any]:
        """The same; and no engine is given the name of a turn's author."""
        for number, turn in enumerate(self.messages):
            if turn.name is not None:
                raise _unsupported(f"messages[{number}].name")
        return super().passed(accepts)

    def chosen(self, given: Collection[str]) -> list[str]:
        """Of the fields that an engine is given, those that it may find something wrong with: an order of turns too."""
        return super().chosen(given) + (["messages"] if len(self.messages) > 1 else [])

    def turns(self) -> list[dict[str, str]]:
        """The conversation as an engine reads it."""
        return [{"role": one.role.replace("developer", "system"), "content": one.text} for one in self.messages]

    def _asking(self) -> set[str]:
        return {"messages"}


class Completion(Sampled):
    """POST /v1/completions: the release's model goes on with a text, without its prompt and without sections.

    Of several texts the choices come in their order, `n` of each.
    """

    model: Text = Field(json_schema_extra={"enum": [MODEL]})
    prompt: Text | list[Text]
    best_of: int | None = Field(default=None, ge=1, le=4)
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=5)
    suffix: str | None = None

    @field_validator("prompt")
    @classmethod
    def _few(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and not 1 <= len(value) <= MAX_PROMPTS:
            raise ValueError(f"holds 1 to {MAX_PROMPTS} texts")
        return value

    @property
    def texts(self) -> list[str]:
        """What is gone on with, each for itself."""
        return [self.prompt] if isinstance(self.prompt, str) else list(self.prompt)


class Embeddings(Body):
    """POST /v1/embeddings: vectors of the release's own sentence encoder."""

    model: Text = Field(json_schema_extra={"enum": [EMBEDDINGS, MODEL]})
    input: Text | list[Text]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = Field(default=None, max_length=256)

    @field_validator("input")
    @classmethod
    def _few(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list) and not 1 <= len(value) <= MAX_INPUTS:
            raise ValueError(f"holds 1 to {MAX_INPUTS} texts")
        return value

    @property
    def texts(self) -> list[str]:
        """What vectors are asked for."""
        return [self.input] if isinstance(self.input, str) else list(self.input)


class Feedback(Body):
    """POST /v1/feedback: what a reader thinks of an answer."""

    trace: str = Field(pattern=r"^[0-9a-f]{32}$", description="The answer's x-trace-id")
    rating: float = Field(ge=-1, le=1, description="From -1, bad, to 1, good")
    correction: str | None = Field(default=None, max_length=20_000, description="What it should have said")


def _neutral(name: str, value: Any) -> bool:
    """Whether a field changes nothing with this value; 0 is a number, and not False."""
    return any(one == value and isinstance(one, bool) == isinstance(value, bool) for one in NEUTRAL.get(name, []))


def _unsupported(name: str) -> Refused:
    return Refused("unsupported_parameter", f"'{name}' is not supported by this model.", name)


def named(model: str, *known: str) -> None:
    """Raises Refused for a model that is none of these."""
    if model not in known:
        raise Refused("model_not_found", f"There is no such model for this route; there is '{known[0]}'.", "model")


def bounded(turns: list[Turn], messages: int, part_bytes: int) -> None:
    """Raises Refused for a conversation with more turns, or a longer one, than is let in, or one that asks nothing."""
    if len(turns) > messages:
        raise Refused("invalid_value", f"'messages' holds at most {messages} turns.", "messages")
    for number, turn in enumerate(turns):
        if len(turn.text.encode()) > part_bytes:
            where = f"messages[{number}]"
            raise Refused("request_too_large", f"'{where}' is over {part_bytes} bytes.", where)
    if not turns[-1].text.strip():
        raise Refused("invalid_value", "The last message says nothing.", f"messages[{len(turns) - 1}]")


def schema(kind: type[Body]) -> dict[str, Any]:
    """A body as JSON Schema, for the OpenAPI document."""
    return kind.model_json_schema(ref_template="#/components/schemas/{model}")
