"""LlamaIndex against the endpoint and a release, in an environment that holds it (see `given`)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.schema import MetadataMode, NodeRelationship

from nightshift.integrations import llamaindex
from nightshift.retrieve import Filter
from tests.integrations import given
from tests.integrations.asked import ASKED

QUESTION = "When is the pump oiled?"
SLOWLY = f"{QUESTION} SLOW"  # the engine takes its time over each word, so that they come one after another


def test_it_answers_and_knows_its_window() -> None:
    model = llamaindex.llm(given.ENDPOINT)
    assert model.metadata.context_window == 16_384
    assert QUESTION in model.complete(QUESTION).text
    turns = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content=QUESTION)]
    answer = model.chat(turns)
    assert QUESTION in str(answer.message.content)
    assert answer.raw.model_extra["nightshift"]["sections"][0]["title"] == "Pump > Maintenance"
    assert QUESTION in llamaindex.llm(given.ENDPOINT, is_chat_model=False).complete(QUESTION).text


def test_a_stream_is_the_answer_in_parts() -> None:
    parts = list(llamaindex.llm(given.ENDPOINT).stream_chat([ChatMessage(role="user", content=SLOWLY)]))
    assert len([one for one in parts if one.delta]) > 2
    assert QUESTION in str(parts[-1].message.content)
    said = list(llamaindex.llm(given.ENDPOINT, is_chat_model=False).stream_complete(QUESTION))
    assert QUESTION in said[-1].text


def test_it_answers_in_an_event_loop() -> None:
    async def asked() -> None:
        model = llamaindex.llm(given.ENDPOINT)
        assert QUESTION in (await model.acomplete(QUESTION)).text
        parts = [one.delta async for one in await model.astream_complete(QUESTION)]
        assert QUESTION in "".join(str(one) for one in parts)
        assert len(await llamaindex.Retriever(given.corpus()).aretrieve(QUESTION)) == 2
        assert len(await llamaindex.embedding(given.ENDPOINT).aget_query_embedding(QUESTION)) == 384
        answer = await llamaindex.query_engine(given.corpus(), model).aquery(QUESTION)
        assert len(answer.source_nodes) == 2

    asyncio.run(asked())


def test_a_key_that_is_not_valid_is_an_exception_of_the_client() -> None:
    with pytest.raises(openai.AuthenticationError):
        llamaindex.llm(given.ENDPOINT, api_key="ns_wrong").complete(QUESTION)


def test_vectors_are_the_indexs() -> None:
    model, index = llamaindex.embedding(given.ENDPOINT), given.corpus().system.index
    text = f"{index.sections['title'][0]} {index.sections['body'][0]}"
    vectors = model.get_text_embedding_batch([text, QUESTION])
    assert [len(one) for one in vectors] == [384, 384]
    assert vectors[0] == model.get_query_embedding(text)


def test_it_finds_what_the_index_finds() -> None:
    told = []
    for question, k, only, groups in ASKED:
        found = llamaindex.Retriever(given.corpus(groups), k, only).retrieve(question)
        told.append([[one.node.node_id, one.score] for one in found])
    given.told("found", told)


def test_a_node_says_where_it_comes_from_and_shows_what_the_release_shows() -> None:
    corpus = given.corpus()
    node = llamaindex.Retriever(corpus, 1, Filter(sources=["survey"])).retrieve("How deep is the well?")[0].node
    assert (node.metadata["source"], node.metadata["path"]) == ("survey", "plant/well.md")
    assert node.metadata["release"] == corpus.digest
    assert node.relationships[NodeRelationship.SOURCE].node_id == node.metadata["document"] == node.ref_doc_id
    assert node.get_content() == "The old well is forty metres deep."
    assert (
        node.get_content(MetadataMode.LLM) == corpus.shown(corpus.search("How deep?", 1, Filter(title="Well"))).strip()
    )
    text = corpus.sections(Filter(title="Pump > M"))[0].body
    cut = llamaindex.Retriever(corpus, 1, Filter(title="Pump > M"), cut=True).retrieve("pump")[0].node.get_content()
    assert cut == corpus.system.cut(text) == text[:40]


def test_the_query_engine_asks_with_the_releases_prompt() -> None:
    corpus = given.corpus()
    engine = llamaindex.query_engine(corpus, llamaindex.llm(given.ENDPOINT), k=2)
    said = engine.query(QUESTION)
    assert QUESTION in str(said)
    assert [(one.node.node_id, one.score) for one in said.source_nodes] == [
        (hit.id, hit.score) for hit in corpus.search(QUESTION, 2)
    ]
    asked = llamaindex.prompt(corpus).format_messages(
        context_str=corpus.shown(corpus.search(QUESTION, 2)), query_str=QUESTION
    )
    wanted = corpus.system.messages(QUESTION, corpus.search(QUESTION, 2))
    assert [{"role": one.role.value, "content": one.content} for one in asked] == wanted


def test_the_query_engine_streams() -> None:
    engine = llamaindex.query_engine(given.corpus(), llamaindex.llm(given.ENDPOINT), streaming=True)
    assert QUESTION in "".join(engine.query(QUESTION).response_gen)


def test_the_chat_engine_goes_on_with_what_was_said() -> None:
    engine = llamaindex.chat_engine(given.corpus(), llamaindex.llm(given.ENDPOINT))
    first = engine.chat(QUESTION)
    assert QUESTION in first.response
    assert first.source_nodes[0].node.metadata["title"] == "Pump > Maintenance"
    second = engine.stream_chat("And the valve?")
    assert "And the valve?" in "".join(second.response_gen)
    assert [turn.role.value for turn in engine.chat_history] == ["user", "assistant"] * 2


@pytest.mark.parametrize("program", given.programs("llamaindex"), ids=lambda one: one.stem)
def test_a_program_of_its_documentation_runs(program: Path) -> None:
    given.run(program)


def test_the_page_runs() -> None:
    given.run(given.page("llamaindex"))
