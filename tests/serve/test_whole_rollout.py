"""A second release goes the whole way as a person types it: real registry, signature, engines and keys."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from nightshift import params, port, rollouts
from nightshift.serve.keys import ADMIN, Keys
from tests.release import project

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@dataclass
class Serving:
    """A project whose endpoint runs."""

    made: project.Released
    url: str
    admin: str
    key: str
    environ: dict[str, str]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        asked = [sys.executable, "-m", "nightshift.cli", *words]
        return subprocess.run(
            asked, cwd=self.made.folder, env=self.environ, capture_output=True, text=True, check=False
        )

    def deployments(self) -> dict[str, Any]:
        head = {"authorization": f"Bearer {self.key}"}
        return dict(httpx.get(f"{self.admin}/admin/v1/deployments", headers=head, timeout=10).json())

    def told(self) -> list[rollouts.Entry]:
        """What became of every candidate, and why."""
        return rollouts.read(self.made.folder / "var")

    def until(self, version: str, within_s: float = 300) -> float:
        """Wait until this release serves; seconds that it took."""
        begun = time.monotonic()
        while (served := self.deployments()["served"]) is None or served["version"] != version:
            assert time.monotonic() < begun + within_s, (self.deployments(), self.told())
            time.sleep(1.5)  # a key may ask once a second
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    made = project.make(tmp_path_factory.mktemp("rollout") / "project")
    path = made.folder / params.FILE
    said = (
        path.read_text().replace("    hold_s: 10.0", "    hold_s: 2.0").replace("    questions: 20", "    questions: 6")
    )
    path.write_text(said)
    at = port.unused(2)
    environ = os.environ | {"PYTHONPATH": str(made.folder / "include")}
    key = Keys(made.folder / "var").create("operator", ADMIN, ("public",), 1, time.time())
    words = [sys.executable, "-m", "nightshift.cli", "serve", "--port", str(at)]
    with subprocess.Popen(words, cwd=made.folder, env=environ) as child:
        one = Serving(made, f"http://127.0.0.1:{at}", f"http://127.0.0.1:{at + 1}", key, environ)
        while True:
            try:
                httpx.get(f"{one.url}/healthz", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        one.until("v0.1.0")
        yield one
        child.terminate()
        assert child.wait(60) == 0


def test_it_is_tried_promoted_and_taken_back_in_five_seconds(serving: Serving) -> None:
    head = {"authorization": f"Bearer {serving.key}"}
    body = {"version": "v0.2.0", "reason": "it passed the gate"}
    said = httpx.post(f"{serving.admin}/admin/v1/deployments", json=body, headers=head, timeout=10)
    assert said.status_code == 200, said.text
    serving.until("v0.2.0")
    history = [one.outcome for one in serving.told()]
    assert history == ["proposed", "begun", "advanced", "advanced", "promoted"]
    assert serving.deployments()["warm"] == ["v0.1.0", "v0.2.0"]
    begun = time.monotonic()
    back = serving.command("rollback", "--reason", "a test")
    assert back.returncode == 0, back.stderr
    serving.until("v0.1.0", 5)
    assert time.monotonic() - begun < 5
    time.sleep(5)
    assert serving.deployments()["served"]["version"] == "v0.1.0"  # and it is not tried again
    assert "0 events" not in serving.command("audit", "verify").stdout
