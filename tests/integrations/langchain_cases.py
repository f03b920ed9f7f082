"""LangChain against the endpoint and a release, in an environment that holds it (see `given`)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import langchain_openai
import openai
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnablePassthrough

from nightshift.integrations import langchain
from nightshift.retrieve import Filter
from tests.integrations import given
from tests.integrations.asked import ASKED

QUESTION = "When is the pump oiled?"
SLOWLY = f"{QUESTION} SLOW"  # the engine takes its time over each word, so that they come one after another


def test_it_answers_at_once_and_in_a_batch() -> None:
    model = langchain.chat(given.ENDPOINT)
    assert isinstance(model.profile, dict)
    assert model.profile["max_input_tokens"] == given.ENDPOINT.model.context_window == 16_384
    said = model.invoke(QUESTION)
    assert QUESTION in said.content
    assert said.usage_metadata["output_tokens"] > 0
    headers = (
        langchain.chat(given.ENDPOINT, include_response_headers=True).invoke(QUESTION).response_metadata["headers"]
    )
    assert len(headers["x-trace-id"]) == 32
    assert all(QUESTION in one.content for one in model.batch([QUESTION, QUESTION]))
    assert (
        QUESTION
        in model.invoke([("system", "Be brief."), ("human", "Hello"), ("ai", "Hi"), ("human", QUESTION)]).content
    )


def test_several_texts_are_gone_on_with_in_one_request() -> None:
    model = langchain_openai.OpenAI(
        model="nightshift", base_url=given.ENDPOINT.url, api_key=given.ENDPOINT.key, max_tokens=40, temperature=0
    )
    first, second = model.batch([QUESTION, "The valve of the old well"])
    assert QUESTION in first and "valve" in second


def test_a_stream_is_the_answer_in_parts_and_counts_its_tokens() -> None:
    model = langchain.chat(given.ENDPOINT)
    parts = list(model.stream(SLOWLY))
    assert len([one for one in parts if one.content]) > 2
    whole = parts[0]
    for one in parts[1:]:
        whole += one
    assert QUESTION in whole.content
    assert whole.usage_metadata["output_tokens"] > 0


def test_it_answers_in_an_event_loop() -> None:
    async def asked() -> None:
        model = langchain.chat(given.ENDPOINT)
        assert QUESTION in (await model.ainvoke(QUESTION)).content
        assert len(await model.abatch([QUESTION, QUESTION])) == 2
        parts = [one.content async for one in model.astream(QUESTION)]
        assert QUESTION in "".join(parts)
        assert len(await langchain.Retriever(corpus=given.corpus()).ainvoke(QUESTION)) == 2

    asyncio.run(asked())


def test_stop_temperature_and_length_are_taken() -> None:
    model = langchain.chat(given.ENDPOINT, temperature=0, max_tokens=12, seed=7)
    assert model.invoke(QUESTION, stop=["zebra"]).content


def test_what_the_endpoint_refuses_is_an_exception_of_the_client() -> None:
    model = langchain.chat(given.ENDPOINT)
    wrong = langchain.chat(given.ENDPOINT, api_key="ns_wrong")
    with pytest.raises(openai.AuthenticationError):
        wrong.invoke(QUESTION)
    with pytest.raises(openai.BadRequestError, match="tools"):
        model.bind_tools(
            [{"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}]
        ).invoke("x")
    with pytest.raises(openai.NotFoundError):
        langchain.chat(given.ENDPOINT, model="gpt-4").invoke(QUESTION)


def test_vectors_are_the_indexs() -> None:
    model, index = langchain.embeddings(given.ENDPOINT), given.corpus().system.index
    text = f"{index.sections['title'][0]}\n{index.sections['body'][0]}"
    assert index.dense[0]
    assert model.embed_query(text) == [float(one) for one in index.vectors[0]]
    assert len(model.embed_documents([text, QUESTION])) == 2


def test_it_finds_what_the_index_finds() -> None:
    told = []
    for question, k, only, groups in ASKED:
        found = langchain.Retriever(corpus=given.corpus(groups), k=k, only=only).invoke(question)
        told.append([[one.id, one.metadata["score"]] for one in found])
    given.told("found", told)


def test_a_document_says_where_it_comes_from() -> None:
    corpus = given.corpus()
    found = langchain.Retriever(corpus=corpus, k=1, only=Filter(sources=["survey"])).invoke("How deep is the well?")
    assert [(one.metadata["source"], one.metadata["path"], one.metadata["licence"]) for one in found] == [
        ("survey", "plant/well.md", "MIT")
    ]
    assert found[0].metadata["title"] == "Well > Depth"
    assert found[0].metadata["release"] == corpus.digest
    assert found[0].page_content == "The old well is forty metres deep."


def test_the_prompt_is_what_the_release_is_judged_with() -> None:
    corpus = given.corpus()
    earlier = [{"role": "user", "content": "Hi {there}"}, {"role": "assistant", "content": "Hello"}]
    turns = [HumanMessage("Hi {there}"), AIMessage("Hello")]
    found = langchain.Retriever(corpus=corpus, k=3).invoke("What is painted?")
    filled = langchain.prompt(corpus).invoke(
        {"sections": langchain.shown(corpus, found), "question": "What is painted?", "history": turns}
    )
    wanted = corpus.system.messages("What is painted?", corpus.search("What is painted?", 3), earlier)
    assert _turns(filled) == wanted
    closed = langchain.prompt(corpus, sections=False).invoke({"question": "Who?"})
    assert _turns(closed) == corpus.system.messages("Who?", ())


def test_a_chain_answers_from_sections() -> None:
    corpus = given.corpus()

    def shown(documents: list[Document]) -> str:
        return langchain.shown(corpus, documents)

    found = {"sections": langchain.Retriever(corpus=corpus) | shown, "question": RunnablePassthrough()}
    chain = found | langchain.prompt(corpus) | langchain.chat(given.ENDPOINT) | StrOutputParser()
    assert QUESTION in chain.invoke(QUESTION)


@pytest.mark.parametrize("program", given.programs("langchain"), ids=lambda one: one.stem)
def test_a_program_of_its_documentation_runs(program: Path) -> None:
    given.run(program)


def test_the_page_runs() -> None:
    given.run(given.page("langchain"))


def _turns(filled: object) -> list[dict[str, str]]:
    roles = {"human": "user", "ai": "assistant", "system": "system"}
    return [{"role": roles[one.type], "content": one.content} for one in filled.to_messages()]
