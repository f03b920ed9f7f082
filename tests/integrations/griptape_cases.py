"""Griptape against the endpoint and a release, in an environment that holds it (see `given`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from griptape.artifacts import TextArtifact
from griptape.drivers.vector import BaseVectorStoreDriver
from griptape.observability import Observability
from griptape.rules import Rule
from griptape.structures import Agent
from griptape.tasks import PromptTask
from griptape.tools import BaseTool
from griptape.utils import Stream
from griptape.utils.decorators import activity
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from nightshift.errors import AccessDenied, UsageError
from nightshift.integrations import griptape
from nightshift.integrations.observability import NAMES, ObservabilityDriver
from nightshift.retrieve import Filter
from tests.integrations import given
from tests.integrations.asked import ASKED

QUESTION = "When is the pump oiled?"
SLOWLY = f"{QUESTION} SLOW"  # the engine takes its time over each word, so that they come one after another


def test_an_agent_answers_and_remembers() -> None:
    agent = Agent(prompt_driver=griptape.prompt_driver(given.ENDPOINT), rules=[Rule("Be brief")])
    assert QUESTION in agent.run(QUESTION).output.value
    assert "And the valve?" in agent.run("And the valve?").output.value
    assert len(agent.conversation_memory.runs) == 2


def test_a_stream_is_the_answer_in_parts() -> None:
    driver = griptape.prompt_driver(given.ENDPOINT, stream=True)
    parts = [one.value for one in Stream(Agent(prompt_driver=driver)).run(SLOWLY)]
    assert len(parts) > 2
    assert QUESTION in "".join(parts)


def test_its_tokenizer_knows_the_window_without_the_network() -> None:
    driver = griptape.prompt_driver(given.ENDPOINT)
    assert driver.tokenizer.max_input_tokens == 16_384
    assert driver.tokenizer.count_tokens("abcd") == 2


def test_vectors_are_the_indexs() -> None:
    index = given.corpus().system.index
    text = f"{index.sections['title'][0]}\n{index.sections['body'][0]}"
    asked = griptape.embedding_driver(given.ENDPOINT).embed(text)
    assert asked == [float(one) for one in index.vectors[0]]
    assert asked == griptape.IndexEmbeddingDriver(corpus=given.corpus()).embed(text)


def test_it_finds_what_the_index_finds() -> None:
    told = []
    for question, k, only, groups in ASKED:
        found = griptape.VectorStoreDriver(corpus=given.corpus(groups), only=only).query(question, count=k)
        told.append([[one.id, one.score] for one in found])
    given.told("found", told)


def test_an_entry_is_an_artifact_with_its_reference() -> None:
    store = griptape.VectorStoreDriver(corpus=given.corpus())
    found = store.query("How deep is the well?", count=1, namespace="survey", include_vectors=True)[0]
    artifact = found.to_artifact()
    assert isinstance(artifact, TextArtifact)
    assert artifact.value == "Well > Depth\nThe old well is forty metres deep."
    assert (artifact.reference.title, artifact.reference.source) == ("Well > Depth", "survey: plant/well.md")
    assert (found.namespace, found.meta["licence"], len(found.vector)) == ("survey", "MIT", 384)
    assert store.query(QUESTION, namespace="survey")[0].id == found.id
    assert (
        griptape.VectorStoreDriver(corpus=given.corpus(), only=Filter(sources=["notes"])).query("x", namespace="survey")
        == []
    )


def test_a_vector_finds_its_section() -> None:
    store = griptape.VectorStoreDriver(corpus=given.corpus())
    vector = griptape.embedding_driver(given.ENDPOINT).embed("Well > Depth\nThe old well is forty metres deep.")
    found = store.query_vector(vector, count=2)
    assert found[0].meta["title"] == "Well > Depth"
    assert found[0].score == pytest.approx(1, abs=1e-3)
    with pytest.raises(UsageError, match="384"):
        store.query_vector([1.0, 2.0])


def test_entries_are_those_that_the_asker_may_see() -> None:
    everyone = griptape.VectorStoreDriver(corpus=given.corpus())
    board = griptape.VectorStoreDriver(corpus=given.corpus(("public", "board")))
    assert (len(everyone.load_entries()), len(board.load_entries())) == (4, 5)
    secret = next(one for one in board.load_entries() if one.meta["path"] == "board.md")
    assert board.load_entry(secret.id).meta["title"] == "Board > Salaries"
    assert everyone.load_entry(secret.id) is None
    assert not everyone.does_entry_exist(secret.id)
    assert len(everyone.load_artifacts(namespace="survey").value) == 1


def test_a_release_is_only_read() -> None:
    store = griptape.VectorStoreDriver(corpus=given.corpus())
    with pytest.raises(AccessDenied, match="only read"):
        store.upsert("A new fact.")
    with pytest.raises(AccessDenied, match="only read"):
        store.delete_vector("x")


def test_the_rag_engine_answers_from_sections() -> None:
    corpus = given.corpus()
    engine = griptape.rag_engine(corpus, griptape.prompt_driver(given.ENDPOINT), k=2)
    done = engine.process_query(QUESTION)
    assert QUESTION in done.outputs[0].value
    assert [one.id for one in done.text_chunks] == [hit.id for hit in corpus.search(QUESTION, 2)]
    assert done.get_references()[0].title == "Pump > Maintenance"


class Clock(BaseTool):
    """A tool."""

    @activity(config={"description": "Tells the time"})
    def tell(self) -> TextArtifact:
        """The time."""
        return TextArtifact("noon")


class Told:
    """Spans that a driver emitted."""

    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.driver = ObservabilityDriver(tracer=provider.get_tracer("test"))

    def named(self, name: str) -> Any:
        return next(one for one in self.spans.get_finished_spans() if one.name.startswith(name))


def test_an_agents_run_is_spans_with_gen_ai_names() -> None:
    told = Told()
    driver = griptape.prompt_driver(given.ENDPOINT, temperature=0, max_tokens=9)
    with Observability(observability_driver=told.driver):
        Agent(prompt_driver=driver).run(QUESTION)
        griptape.VectorStoreDriver(corpus=given.corpus()).query(QUESTION, count=1)
        assert told.driver.get_span_id() is None
    chat, agent, search = told.named("chat"), told.named("invoke_agent"), told.named("retrieval")
    assert (chat.name, chat.kind, chat.parent.span_id) == ("chat nightshift", SpanKind.CLIENT, agent.context.span_id)
    assert chat.attributes["gen_ai.operation.name"] == "chat"
    assert chat.attributes["gen_ai.request.model"] == "nightshift"
    assert (chat.attributes["gen_ai.request.temperature"], chat.attributes["gen_ai.request.max_tokens"]) == (0, 9)
    assert chat.attributes["gen_ai.usage.output_tokens"] > 0
    assert search.attributes["nightshift.sections.ids"] == tuple(hit.id for hit in given.corpus().search(QUESTION, 1))
    assert len(told.spans.get_finished_spans()) == 3
    assert not [one for span in told.spans.get_finished_spans() for one in span.attributes if one not in NAMES.values()]
    assert "pump" not in "".join(span.to_json() for span in told.spans.get_finished_spans()).lower()
    given.told("trace", f"{agent.context.trace_id:032x}")


def test_a_streamed_prompt_and_a_failed_one_are_spans_too() -> None:
    told = Told()
    with Observability(observability_driver=told.driver):
        list(Stream(Agent(prompt_driver=griptape.prompt_driver(given.ENDPOINT, stream=True))).run(QUESTION))
        client = openai.OpenAI(base_url=given.URL, api_key="ns_wrong", max_retries=0)
        wrong = griptape.prompt_driver(given.ENDPOINT, client=client)
        with pytest.raises(openai.AuthenticationError):
            wrong.run(TextArtifact("the secret of the pump"))
    streamed, failed = [one for one in told.spans.get_finished_spans() if one.name == "chat nightshift"]
    assert streamed.attributes["gen_ai.usage.output_tokens"] > 0
    assert failed.attributes["error.type"] == "AuthenticationError"
    assert failed.status.status_code == StatusCode.ERROR
    assert not failed.events
    assert "secret" not in failed.to_json()


def test_a_tool_is_a_span() -> None:
    told, tool = Told(), Clock()
    task = PromptTask(tools=[tool], prompt_driver=griptape.prompt_driver(given.ENDPOINT))
    with Observability(observability_driver=told.driver):
        tool.try_run(tool.tell, None, None, None)
    assert task.tools == [tool]
    assert told.named("execute_tool").attributes["gen_ai.tool.name"] == "Clock"


def test_a_store_is_one_that_griptape_knows() -> None:
    assert isinstance(griptape.VectorStoreDriver(corpus=given.corpus()), BaseVectorStoreDriver)


@pytest.mark.parametrize("program", given.programs("griptape"), ids=lambda one: one.stem)
def test_a_program_of_its_documentation_runs(program: Path) -> None:
    given.run(program)


def test_the_page_runs() -> None:
    given.run(given.page("griptape"))
