"""The pod that a stage asks for in `meta.airflow`, as plain data; dvc_airflow/pod.py makes Kubernetes' own of it.

It says what people ask for who send a stage to a cluster: how much, on which nodes, as whom, with which disks. All else
that a pod may have belongs to the whole installation, and stands in the executor's pod template. What Kubernetes would
refuse hours later, when the stage's turn has come, is refused where dvc.yaml is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

GPU = "nvidia.com/gpu"
# kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity
QUANTITY = re.compile(r"(\d+\.?\d*|\.\d+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?")
SUFFIXES = {"n": "1e-9", "u": "1e-6", "m": "1e-3", "k": "1e3", "M": "1e6", "G": "1e9", "T": "1e12", "P": "1e15"}
SUFFIXES |= {"E": "1e18"} | {f"{unit}i": str(1024**power) for power, unit in enumerate("KMGTPE", 1)}
PLAIN = ("cpu", "memory", "ephemeral-storage")
OTHERS = re.compile(r"hugepages-\w+|[a-z0-9.-]+/[\w.-]+")  # a vendor's device is named by the vendor's domain
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")  # of an object in Kubernetes
# the host and port of a registry, a path, a tag, a digest
IMAGE = re.compile(r"([\w.-]+(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?")


def amount(said: str) -> Decimal:
    """What a quantity comes to: '500m' is 0.5, '2Ki' is 2048. Raises ValueError for what is none."""
    if (found := QUANTITY.fullmatch(said)) is None:
        raise ValueError(f"{said!r} is no quantity of Kubernetes, like 2, 500m or 4Gi")
    number, suffix = found[1], found[2] or ""
    if suffix[:1] in ("e", "E") and suffix[1:] not in ("", "i"):
        return Decimal(number + suffix)
    return Decimal(number) * Decimal(SUFFIXES.get(suffix, "1"))


def _quantity(said: Any) -> str:
    """A quantity as Kubernetes writes one; YAML's 2 and 0.5 are numbers."""
    written = str(said) if isinstance(said, str | int | float) and not isinstance(said, bool) else repr(said)
    if amount(written) <= 0:
        raise ValueError(f"{written} is nothing")
    return written


def _bytes(said: Any) -> str:
    """A quantity of bytes; 'm' after one is a slip that Kubernetes takes for thousandths."""
    written = _quantity(said)
    if amount(written) < 1 << 20:
        raise ValueError(f"{written} is less than a megabyte; write 500Mi or 4Gi")
    return written


def _resources(said: Any) -> Any:
    """Resource → quantity, each checked."""
    if not isinstance(said, Mapping):
        return said
    found = {}
    for name, value in said.items():
        if name not in PLAIN and not OTHERS.fullmatch(str(name)):
            raise ValueError(f"{name!r} is no resource, like {', '.join(PLAIN)} or {GPU}")
        try:
            found[name] = (_quantity if name not in PLAIN[1:] else _bytes)(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def _name(said: str) -> str:
    if not NAME.fullmatch(said):
        raise ValueError("a name in Kubernetes has small letters, digits, '-' and '.' alone")
    return said


def _volumes(said: dict[str, str]) -> dict[str, str]:
    for path, claim in said.items():
        if not path.startswith("/"):
            raise ValueError(f"{path!r} is no absolute path to mount a claim at")
        _name(claim)
    return said


def _image(said: str) -> str:
    if not IMAGE.fullmatch(said):
        raise ValueError("it is no name of an image, like registry.example.org/team/train:1.2")
    return said


Resources = Annotated[dict[str, str], BeforeValidator(_resources)]
Image = Annotated[str, AfterValidator(_image)]


class Toleration(BaseModel):
    """Of a taint of nodes; without a value it is of any.

    Attributes:
        key: of the taint; none for all taints.
        operator: as the value says: Exists without one, Equal with one. Kubernetes' own default is Equal, which without
            a value is equal to nothing.
        effect: of the taint; none for all effects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _compares(cls, said: Any) -> Any:
        if not isinstance(said, Mapping):
            return said
        fits = "Exists" if said.get("value") is None else "Equal"
        if said.get("operator", fits) != fits:
            raise ValueError(f"operator is {said['operator']!r}: with a value it is Equal, without one Exists")
        return {**said, "operator": fits}


class Pod(BaseModel):
    """What a stage asks of its pod.

    Attributes:
        requests: resource → quantity that a node must have free for it: cpu, memory, ephemeral-storage.
        limits: resource → quantity that it may take; a vendor's devices are asked for here alone.
        gpus: of NVIDIA.
        node_selector: label → value of the nodes that it may run on.
        tolerations: of taints that keep others from these nodes.
        service_account: that it runs as.
        shm: quantity of /dev/shm, which is 64 MB in a container and too small for torch's loaders and NCCL.
        volumes: path in the container → persistent volume claim that is mounted there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: Resources = {}
    limits: Resources = {}
    gpus: int | None = Field(default=None, ge=1)
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    service_account: Annotated[str, AfterValidator(_name)] | None = None
    shm: Annotated[str | None, BeforeValidator(_bytes)] = None
    volumes: Annotated[dict[str, str], AfterValidator(_volumes)] = {}

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """Refuse what Kubernetes refuses: more asked for than it may have, a device that is no limit."""
        for name, asked in self.requests.items():
            if "/" in name:
                raise ValueError(f"requests has {name}, which Kubernetes takes from limits; name it there alone")
            if name in self.limits and amount(asked) > amount(self.limits[name]):
                what = f"requests asks for {asked} of {name}, and limits lets it have {self.limits[name]}"
                raise ValueError(f"{what}; ask for no more than that")
        if self.gpus and GPU in self.limits:
            raise ValueError(f"gpus and limits both say how many of {GPU}; leave one out")
        return self
