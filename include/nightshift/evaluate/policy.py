"""The gate's policy: what include/policies/gate.yaml may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from nightshift.errors import ParamsError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Comparison(_Strict):
    """One metric that is compared, item by item."""

    metric: str
    book: Literal["closed", "open"]
    tier: Literal["critical", "supporting", "advisory"]
    better: Literal["higher", "lower"]
    kind: Literal["binary", "number"]
    margin: float = Field(gt=0, description="Damage that must be ruled out, in the metric's unit")
    effect: float = Field(gt=0, description="Smallest gain worth having, in the metric's unit")
    min_items: int = Field(ge=2, description="Fewer pairs decide nothing")
    gain: bool = Field(default=False, description="Whether to be better on it counts, as on every supporting metric")

    @property
    def counts(self) -> bool:
        """Whether to be better on it is a reason to let a system out."""
        return self.gain or self.tier == "supporting"

    @property
    def name(self) -> str:
        """'choice_accuracy (open)'."""
        return f"{self.metric} ({self.book}-book)"


class Check(_Strict):
    """One metric whose mean must lie within bounds, of which there is at least one."""

    metric: str
    book: Literal["closed", "open"]
    least: float | None = None
    most: float | None = None
    min_items: int = Field(ge=1)
    baseline: Literal["required", "measured", "no"]

    @property
    def name(self) -> str:
        """'safe (closed-book)'."""
        return f"{self.metric} ({self.book}-book)"

    @model_validator(mode="after")
    def _bounded(self) -> Check:
        if self.least is None and self.most is None:
            raise ValueError(f"{self.name} has neither `least` nor `most`")
        return self


class Policy(_Strict):
    """All that the gate asks."""

    comparisons: list[Comparison] = Field(min_length=1)
    checks: list[Check] = Field(min_length=1)

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read a policy. Raises ParamsError, also for one that would let everything through."""
        try:
            found = cls.model_validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
        except (ValidationError, YAMLError, UnicodeDecodeError) as error:
            said = str(error).splitlines()
            raise ParamsError(" ".join(said[1:3]).strip() or said[0], str(path), "mend it there") from None
        tiers = {one.tier for one in found.comparisons}
        if not {"critical", "supporting"} <= tiers or not any(one.baseline == "required" for one in found.checks):
            do = "name at least one critical and one supporting comparison, and one check that a baseline needs"
            raise ParamsError("this policy would let everything through", str(path), do)
        return found
