"""What params.yaml says of deployment is refused where it cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from nightshift import deployment, params, registry
from nightshift.deployment import Deployment, Environments
from nightshift.errors import ParamsError

PROD = "{name: prod, target: null, slo: slo, keys: local, approvals: 0}"
REFUSED = {
    "busy hours that end before they begin": ("from_hour: 8", "from_hour: 19", "the busy hours end at 18, before"),
    "a day twice": ("[mon, tue,", "[mon, mon,", "a day stands twice"),
    "no such day": ("[mon, tue,", "[mon, tues,", "not 'tues'"),
    "asked from nowhere": ("asked_from: device", "asked_from: moon", "'device', 'network', 'internet' or 'offline'"),
    "nobody": ("users: 5", "users: 0", "greater than or equal to 1"),
    "no prod": ("name: prod", "name: live", "none is named prod"),
    "the rollout's own": (
        f"- {PROD}",
        f"- {PROD.replace('prod', 'canary')}\n    - {PROD}",
        "canary is where a rollout",
    ),
    "two of a name": (f"- {PROD}", f"- {PROD}\n    - {PROD}", "two environments are named 'prod'"),
    "approvals at night": ("approvals: 0", "approvals: 1", "nobody approves at night"),
    "a name that is no tag's": ("name: prod", "name: Prod-1", "should match pattern"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_meant_is_refused_with_its_line(name: str, root: Path, tmp_path: Path) -> None:
    old, new, sentence = REFUSED[name]
    said = (root / "params.yaml").read_text()
    assert old in said
    path = tmp_path / "params.yaml"
    path.write_text(said.replace(old, new, 1))
    with pytest.raises(ParamsError, match=r"params\.yaml:\d+: (deployment|environments)") as refused:
        params.load(path, Deployment)
        params.load(path, Environments)
    assert sentence in str(refused.value)


def test_the_environment_of_rollouts_is_the_registrys() -> None:
    assert deployment.CANARY == registry.CANARY


def test_nights_deploy_to_the_first(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    staging = PROD.replace("prod", "staging")
    path.write_text((root / "params.yaml").read_text().replace(f"- {PROD}", f"- {staging}\n    - {PROD}"))
    assert params.load(path, Environments).first == "staging"
    assert params.load(root / "params.yaml", Environments).first == "prod"
