"""Nothing that a person wrote, and no secret, is in a byte that leaves the endpoint by a trace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nightshift import segments, tracing
from nightshift.cli import traces
from nightshift.integrations.langfuse import PUBLIC, SECRET, TRACES
from nightshift.place import Place
from nightshift.spans import FOLDER, Tracer
from tests import models
from tests.conftest import ROOT
from tests.data.conftest import section
from tests.integrations import langfuse_server
from tests.integrations.langfuse_server import Langfuse, langfuse
from tests.serve import scripted
from tests.serve.scripted import Endpoint

QUESTION, ANSWER, BODY, TITLE, USER = "quaffelbier", "zwiebelfisch", "muckefuck", "kaffeekranz", "anna@example.org"
ROWS: list[dict[str, object]] = [section("pump.md", f"Pump > {TITLE}", f"The pump {BODY} is oiled by the keeper.")]


@dataclass
class Watched:
    """An endpoint whose traces go to its file and to Langfuse, as its command makes them."""

    endpoint: Endpoint
    tracer: Tracer
    langfuse: Langfuse
    home: Path

    def exported(self) -> bytes:
        """Every byte that its two traces left, once they are out: a stream's ends after its last word."""
        self.langfuse.wait_for("chat", 2)
        self.tracer.close()
        kept = [path.read_bytes() for path in segments.files(self.home / FOLDER)]
        return b"\n".join([*kept, *self.langfuse.bodies])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("private")
    with scripted.endpoint(folder, models.system(folder / "plain", ROOT, ROWS)) as made:
        made.served.prompt = made.served.corpus = "d" * 64
        yield made


@pytest.fixture
def watched(served: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setenv(PUBLIC, langfuse_server.PUBLIC)
    monkeypatch.setenv(SECRET, langfuse_server.SECRET)
    with langfuse() as held:
        named = f"  langfuse: {{url: '{held.url}', environment: staging}}\n"
        text = (ROOT / "params.yaml").read_text().replace("  langfuse: null\n", named)
        (tmp_path / "params.yaml").write_text(text)
        tracer = traces.tracer(Place(tmp_path, tmp_path, tmp_path, tmp_path))
        before, served.front.tracer = served.front.tracer, tracer
        yield Watched(served, tracer, held, tmp_path)
        served.front.tracer = before
        tracer.close()


@pytest.mark.parametrize("stream", [False, True])
def test_no_canary_is_in_an_exported_byte(watched: Watched, stream: bool) -> None:
    said = watched.endpoint.ask(
        f"Who oils the {QUESTION} pump of {USER}, +49 30 901820? SAY: {ANSWER} of {USER}", stream=stream, user=USER
    )
    assert said.status_code == 200, said.text
    assert ANSWER in said.text  # the canary was there to be found
    broken = watched.endpoint.ask(f"{QUESTION} BREAK {ANSWER}", stream=stream)
    assert "engine_error" in broken.text
    sent = watched.exported()
    assert watched.tracer.refused == {}
    assert sent.count(b"gen_ai.usage.input_tokens") >= 2  # in the file, and in Langfuse
    assert b"engine_error" in sent
    known, secret = watched.endpoint.key[9:19], watched.endpoint.key[20:63]  # ns_local_ID_SECRET_CHECK
    for canary in (QUESTION, ANSWER, BODY, TITLE, USER, "anna", "901820", secret, "127.0.0.1", "/secret/path"):
        assert canary.encode() not in sent, canary
    assert known.encode() in sent  # the key's id, and no more of it
    assert watched.langfuse.complaints == []
    assert set(watched.langfuse.asked(TRACES)) == {200}


def test_the_command_makes_the_tracer_that_params_ask_for(watched: Watched) -> None:
    assert set(watched.tracer.counts()) == {"file", "content", "langfuse", "langfuse-scores"}
    assert (watched.home / FOLDER / tracing.SECRET).is_file()
