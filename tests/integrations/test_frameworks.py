"""LangChain, LlamaIndex and Griptape, each as it is installed, against one endpoint and one release.

Each runs in an environment of its own (`environments`): its cases are `NAME_cases.py`, and run there as one process.
What needs both sides is compared here: the sections that each found with what the index finds, and the fields that each
sent with those that are known, so that a client that sends another is seen before a user has it.
"""

from __future__ import annotations

import json
import runpy
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from nightshift.answer import System
from tests.integrations import environments, test_openai
from tests.integrations.asked import ASKED
from tests.integrations.release import Checkout
from tests.integrations.served import Running, really_serving

CHAT = {"model", "messages", "stream"}
FIELDS: dict[str, dict[str, set[str]]] = {
    "langchain": {
        "/v1/models": set(),
        "/v1/chat/completions": CHAT
        | {"stream_options", "stop", "temperature", "seed", "max_completion_tokens"}
        | {"tools"},  # which are refused
        # LangChain's `OpenAI` sends what it has no value for as null
        "/v1/completions": {"model", "prompt", "n", "seed", "logprobs", "max_tokens", "temperature", "top_p"}
        | {"frequency_penalty", "presence_penalty"},
        "/v1/embeddings": {"model", "input", "encoding_format"},
    },
    "llamaindex": {
        "/v1/models": set(),
        "/v1/chat/completions": CHAT | {"temperature"},
        "/v1/completions": {"model", "prompt", "stream", "temperature"},
        "/v1/embeddings": {"model", "input", "encoding_format"},
    },
    "griptape": {
        "/v1/models": set(),
        "/v1/chat/completions": CHAT | {"stream_options", "stop", "temperature", "max_tokens"},
        "/v1/embeddings": {"model", "input", "encoding_format"},
    },
}


@pytest.mark.parametrize(
    "name", ["langchain", *(pytest.param(name, marks=pytest.mark.long) for name in FIELDS if name != "langchain")]
)
def test_it_works_with_the_endpoint_and_finds_what_the_index_finds(name: str, running: Running) -> None:
    folder, told = running.checkout.root, running.checkout.root / "told-found.json"
    told.unlink(missing_ok=True)
    running.recorder.forget()
    environments.cases(name, folder, running.url)
    assert json.loads(told.read_text()) == wanted(running)
    sent: dict[str, set[str]] = defaultdict(set)
    for one in running.recorder.sent:
        sent[one.path] |= set(one.body)
    assert sent == FIELDS[name]
    if name == "griptape":
        trace = json.loads((folder / "told-trace.json").read_text())
        assert any(trace in one.headers.get("traceparent", "") for one in running.recorder.sent)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_programs_and_pages_run_with_a_real_engine(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they say is a random model's; that each ends well is what is asked."""
    own = replace(checkout, root=tmp_path / "checkout")
    shutil.copytree(checkout.root, own.root)
    with really_serving(own) as url:
        for name in FIELDS:
            environments.cases(name, own.root, url, "-k", "documentation or page")
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        monkeypatch.setenv("OPENAI_API_KEY", (own.root / "var" / "first.key").read_text().strip())
        for program in test_openai.PROGRAMS:
            runpy.run_path(str(program), run_name="__main__")


def wanted(running: Running) -> list[list[list[object]]]:
    """What the index itself finds, its encoder in this process."""
    system = System.open(running.checkout.folder / "system")
    found = [
        system.index.search(question, k or system.settings["sections"], groups, only)
        for question, k, only, groups in ASKED
    ]
    assert all(found)
    return [[[hit.id, hit.score] for hit in hits] for hits in found]
