"""What is promised, as OpenSLO v1 has it: one file an objective in include/policies/slo.

Read as strictly as params.yaml. Of OpenSLO what is used here: an SLO with its indicator inside, a ratio of good to
total events, one rolling window, one target. `nightshift/threshold` among the annotations is what makes an event good
(seconds, a share, an index: the file's comment says which), `category` among the labels says what it is about.
The endpoint counts what Prometheus could (openslo's source `Prometheus`: the metric that the query names), and that
alone has a budget; what only days and nights tell has the source `nightshift`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nightshift import params
from nightshift.deployment import Environments
from nightshift.errors import ParamsError
from nightshift.params import Strict, whole

POLICIES = Path("include") / "policies"
FOLDER = POLICIES / "slo"
MINUTES = {"m": 1, "h": 60, "d": 1440, "w": 10_080}
# where a total outage still burns twice the budget; below 0.926 it burns less than a page asks for (slo.py), and only
# tickets come of it
LEAST_TARGET = 0.5
SELECTOR = re.compile(r'[a-z_]+\{[a-z_]+="[a-z_]+"\}')
# what the endpoint counts, and what days and nights tell
COUNTED = (
    "availability", "first_token", "first_token_tail", "speed", "overhead", "correctness", "grounded", "privacy",
)  # fmt: skip
TOLD = ("drift", "night_on_time", "freshness")
Category = Literal["health", "accuracy", "privacy", "pipeline"]


@dataclass(frozen=True)
class Objective:
    """One promise.

    Args:
        name: of its indicator, as counts.py has it: 'first_token'.
        category: what it is about: of one fault that shows in several of a category one alert is made.
        target: share of valid events that are to be good.
        threshold: what makes an event good, in the unit that the file names; None where it is no number.
        window: minutes over which the budget is reckoned.
        good: query for good events; in words where only nightshift can tell.
        total: query for valid events.
        counted: whether the endpoint counts it, and burn rates and a budget are reckoned.
        description: what is promised, in words.
    """

    name: str
    category: Category
    target: float
    threshold: float | None
    window: int
    good: str
    total: str
    counted: bool
    description: str

    @property
    def budget(self) -> float:
        """Share of valid events that may be bad."""
        return 1 - self.target


def promised(root: Path) -> dict[str, Objective]:
    """The objectives of a project's endpoint: those of `prod`. Raises ParamsError with file and line."""
    return read(root / POLICIES / params.load(root / params.FILE, Environments).prod.slo)


def read(folder: Path) -> dict[str, Objective]:
    """Every objective by name.

    Raises ParamsError with file and line, and where one stands twice, is counted by nobody, or is needed and not there.
    """
    found: dict[str, Objective] = {}
    for path in sorted(folder.glob("*.yaml")):
        one = whole(path, Slo).objective()
        if one.name in found:
            raise ParamsError(f"{one.name} is promised twice", str(path), "keep one of the files")
        if one.name not in (known := COUNTED if one.counted else TOLD):
            what = f"nobody counts {one.name!r}" if one.counted else f"no day and no night tells of {one.name!r}"
            raise ParamsError(what, str(path), f"known are {', '.join(known)}")
        if one.counted and not all(query.endswith(f'="{one.name}"}}') for query in (one.good, one.total)):
            raise ParamsError(f"its queries are not about {one.name}", str(path), "name it in both, as its label")
        found[one.name] = one
    if missing := [name for name in TOLD if name not in found]:  # `nightshift report` is about these
        raise ParamsError(f"no objective {missing[0]} is there", str(folder), "restore its file from Git")
    return found


def counted(objectives: Iterable[Objective]) -> list[Objective]:
    """Those that the endpoint counts."""
    return [one for one in objectives if one.counted]


class _Metadata(Strict):
    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", description="RFC 1123 label")
    display_name: str | None = Field(default=None, alias="displayName")


class _Labels(Strict):
    category: Category


class _Annotations(Strict):
    threshold: str | None = Field(default=None, alias="nightshift/threshold", pattern=r"^\d+(\.\d+)?$")


class _SloMetadata(_Metadata):
    labels: _Labels
    annotations: _Annotations = _Annotations()


class _Query(Strict):
    query: str = Field(min_length=1)


class _Source(Strict):
    type: Literal["Prometheus", "nightshift"]
    spec: _Query

    @field_validator("spec")
    @classmethod
    def _selects(cls, value: _Query, info: ValidationInfo) -> _Query:
        """A query is a metric and its label: rules put their own functions and ranges around it."""
        if info.data.get("type") == "Prometheus" and not SELECTOR.fullmatch(value.query):
            raise ValueError(f'{value.query!r} is no metric with a label; write it as name{{label="value"}}')
        return value


class _Metric(Strict):
    source: _Source = Field(alias="metricSource")


class _Ratio(Strict):
    counter: bool
    good: _Metric
    total: _Metric

    @model_validator(mode="after")
    def _of_one_source(self) -> _Ratio:
        if self.good.source.type != self.total.source.type:
            raise ValueError("good and total are of two sources; give them one")
        return self


class _IndicatorSpec(Strict):
    ratio: _Ratio = Field(alias="ratioMetric")


class _Indicator(Strict):
    metadata: _Metadata
    spec: _IndicatorSpec


class _Window(Strict):
    duration: str = Field(pattern=r"^[1-9]\d*[mhdw]$")
    rolling: Literal[True] = Field(alias="isRolling")


class _Target(Strict):
    display_name: str | None = Field(default=None, alias="displayName")
    target: float = Field(ge=LEAST_TARGET, lt=1)


class _SloSpec(Strict):
    description: str = Field(min_length=1, max_length=1050)
    service: str
    indicator: _Indicator
    windows: list[_Window] = Field(alias="timeWindow", min_length=1, max_length=1)
    method: Literal["Occurrences"] = Field(alias="budgetingMethod")
    objectives: list[_Target] = Field(min_length=1, max_length=1)


class Slo(Strict):
    """A file of include/policies/slo."""

    version: Literal["openslo/v1"] = Field(alias="apiVersion")
    kind: Literal["SLO"]
    metadata: _SloMetadata
    spec: _SloSpec

    def objective(self) -> Objective:
        """What it promises."""
        ratio, threshold = self.spec.indicator.spec.ratio, self.metadata.annotations.threshold
        duration = self.spec.windows[0].duration
        return Objective(
            name=self.metadata.name.replace("-", "_"),
            category=self.metadata.labels.category,
            target=self.spec.objectives[0].target,
            threshold=None if threshold is None else float(threshold),
            window=int(duration[:-1]) * MINUTES[duration[-1]],
            good=ratio.good.source.spec.query,
            total=ratio.total.source.spec.query,
            counted=ratio.good.source.type == "Prometheus",
            description=self.spec.description,
        )
