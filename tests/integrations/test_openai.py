"""openai's own client against the endpoint: programs as its documentation writes them."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.integrations.served import Running

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("openai_*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.stem)
def test_a_program_of_its_documentation_runs(program: Path, running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", running.url)
    monkeypatch.setenv("OPENAI_API_KEY", running.key)
    runpy.run_path(str(program), run_name="__main__")
