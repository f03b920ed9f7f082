"""`meta.airflow` of a stage, or of an import: what Airflow and the engine need to know of it, and DVC passes over.

Each key that is not known, and each value of another kind, is refused where the DAG is read: a setting that nothing
obeys would be one that its writer believes in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from dvc_engine.pipeline.pod import Image, Pod, Toleration, amount

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {f"{unit}i": 1 << shift for unit, shift in [("K", 10), ("M", 20), ("G", 30), ("T", 40)]}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?|[KMGT]i)B?")


def _referred(value: str) -> str:
    """A variable's value, where it names a secret, as Airflow's backend has them."""
    if value.startswith("airflow://") and not re.fullmatch(r"airflow://(variables|connections)/.+", value):
        raise ValueError("write airflow://variables/NAME or airflow://connections/ID")
    return value


def _name(value: str) -> str:
    """A variable's name as a process may have it."""
    if not re.fullmatch(r"[^=\x00]+", value):
        raise ValueError("the name of a variable is no empty text, and has no =")
    return value


Variables = dict[Annotated[str, AfterValidator(_name)], Annotated[str, AfterValidator(_referred)]]
# pydantic's kinds of errors → words that say what to write
WORDS = {
    "dict_type": "write a mapping of names and values",
    "time_delta_parsing": "write seconds, or as in '1:30:00'",
    "time_delta_type": "write seconds, or as in '1:30:00'",
    "string_type": "write a text, in quotes where YAML takes it for something else",
}


class Wrong(ValueError):
    """What is wrong: at which keys, and in which words."""

    def __init__(self, keys: tuple[str, ...], said: str) -> None:
        self.keys = keys
        super().__init__(said)


def size(said: Any) -> Any:
    """'4 GB', '512MiB' or a number, in bytes. Raises ValueError."""
    if isinstance(said, str):
        if (found := SIZE.fullmatch(said.strip())) is None:
            raise ValueError(f"{said!r} is no size, like 4GB or 512MiB")
        return int(float(found[1]) * UNITS[found[2]])
    return said


def _some(said: Any) -> Any:
    """A number, or a list; no zero, no negative number, no empty list."""
    if not isinstance(said, int | list | None):
        raise ValueError("write a number of local ranks, or lines of a hostfile, as ['host slots=2']")
    if said == [] or (isinstance(said, int) and said < 1):
        raise ValueError("it should name one at least")
    return said


class Task(BaseModel):
    """What Airflow needs to know of a task.

    Attributes:
        pool: that its task takes slots of; `slots`, how many.
        queue: of Celery's workers; `executor`, one of those that Airflow is configured with.
        execution_timeout: seconds, or as in '1:30:00'; it is ended then, and tried again.
        retries: of what another attempt may mend.
        owner: in Airflow's UI.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: str | None = Field(None, min_length=1)
    slots: int | None = Field(None, ge=1, strict=True)
    queue: str | None = Field(None, min_length=1)
    executor: str | None = Field(None, min_length=1)
    execution_timeout: timedelta | None = Field(None, gt=timedelta(0), le=timedelta(days=365))
    retries: int = Field(2, ge=0, strict=True)
    owner: str | None = Field(None, min_length=1)


class Meta(Task):
    """Of a stage in dvc.yaml.

    Attributes:
        env: variables of its command; 'airflow://variables/NAME' and 'airflow://connections/ID' come from Airflow's
            secrets backend, and are masked in its logs.
        venv: a requirements file; its command runs in an environment that has exactly these.
        memory: bytes, or as in '4GB', that its command and all that this starts may take together.
        approve: a question for a person, who decides whether what it made is read and published.
        nodes: hosts as lines of a hostfile ('host slots=2'), or a number of local ranks: $DVC_AIRFLOW_HOSTFILE.
        image: of the container that its task runs in; `pod`, what that asks for: both for Kubernetes' executor alone.
    """

    env: Variables = {}
    venv: str | None = Field(None, min_length=1)
    memory: Annotated[int | None, BeforeValidator(size)] = Field(None, gt=0)
    approve: str | None = Field(None, min_length=1)
    nodes: Annotated[int | list[str] | None, BeforeValidator(_some)] = None
    image: Image | None = None
    pod: Pod | None = None

    @property
    def podded(self) -> bool:
        """Whether it asks for a pod of its own."""
        return self.image is not None or self.pod is not None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """Refuse what a pod has no use for, and a limit at which the kernel would be faster than the recorder."""
        if self.podded and self.queue:
            raise ValueError(f"queue {self.queue} is of Celery's workers, and a pod is none of them; leave one out")
        limit = self.pod.limits.get("memory") if self.pod else None
        if self.memory and limit and amount(limit) <= self.memory:
            what = f"pod.limits.memory is {limit}, and memory lets the command alone have {self.memory / 1e9:g} GB"
            raise ValueError(f"{what}; Airflow and DVC run beside it, so give the pod about 1Gi more")
        return self

    @property
    def hostfile(self) -> str:
        """Of its nodes, as DeepSpeed's launcher reads one; "" for none."""
        if isinstance(self.nodes, int):
            return f"localhost slots={self.nodes}\n"
        return "".join(f"{line}\n" for line in self.nodes or [])


class Import(Task):
    """Of a `.dvc` file.

    Attributes:
        update: whether each night fetches it anew.
        env: as of `Meta`, for what fetches it.
    """

    update: bool = False
    env: Variables = {}


def told(said: Any, imported: bool) -> Meta:
    """What `meta.airflow` says. Raises Wrong."""
    kind = Import if imported else Meta
    if not isinstance(said, Mapping):
        raise Wrong((), f"it is {said!r}, and no mapping of {', '.join(kind.model_fields)}")
    for key, value in said.items():
        if isinstance(value, bool) and key != "update" and key in kind.model_fields:  # pydantic takes it for a number
            raise Wrong((key,), f"{key} is {str(value).lower()}: write what it should be, or leave it out")
    try:
        made = kind.model_validate(dict(said))
    except ValidationError as error:
        raise _wrong(error, kind, said) from None
    return made if isinstance(made, Meta) else Meta(**made.model_dump(exclude={"update"}))


def _wrong(error: ValidationError, kind: type[BaseModel], said: Mapping[str, Any]) -> Wrong:
    """The first thing that is wrong, in one sentence."""
    first = error.errors()[0]
    keys = tuple(str(one) for one in first["loc"] if one != "[key]")
    name = ".".join(keys)
    if first["type"] == "extra_forbidden":
        inside: dict[str, type[BaseModel]] = {"pod": Pod, "tolerations": Toleration}
        known = next((inside[one] for one in reversed(keys[:-1]) if one in inside), kind)
        return Wrong(keys, f"unknown key {name}; name one of {', '.join(known.model_fields)}")
    what = WORDS.get(first["type"]) or first["msg"].removeprefix("Value error, ")
    if what != first["msg"] and keys in ((), ("pod",)):  # of several keys together
        return Wrong(keys, f"{name}: {what}" if keys else what)
    value = said[keys[0]] if len(keys) == 1 else first["input"]
    return Wrong(keys, f"{name} is {value!r}: {what[0].lower()}{what[1:]}")
