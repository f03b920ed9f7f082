"""Airflow's common-ai provider with connections that name the endpoint, in an environment that holds both."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

os.environ |= {"AIRFLOW_HOME": str(Path("airflow").resolve()), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}

from airflow.providers.common.ai.get_provider_info import get_provider_info
from airflow.providers.common.ai.hooks.langchain import LangChainHook
from airflow.providers.common.ai.hooks.llamaindex import LlamaIndexHook
from airflow.providers.common.ai.hooks.pydantic_ai import PydanticAIHook
from airflow.providers.common.ai.operators.llamaindex_embedding import LlamaIndexEmbeddingOperator
from airflow.providers.common.ai.operators.llamaindex_retrieval import LlamaIndexRetrievalOperator
from airflow.providers.common.ai.operators.llm import LLMOperator
from airflow.sdk import BaseHook

from nightshift.errors import UsageError
from nightshift.integrations import langchain, llamaindex
from nightshift.integrations.endpoint import Endpoint
from tests.integrations import given

QUESTION = "When is the pump oiled?"
NAMED = {
    "langchain": {"model": "openai:nightshift", "embed_model": "openai:nightshift"},
    "llamaindex": {"llm_model": "nightshift", "embed_model": "text-embedding-3-small"},
    "pydanticai": {"model": "openai-chat:nightshift"},
}


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection of each type, with the endpoint's address and a key of it."""
    for kind, extra in NAMED.items():
        said = {"conn_type": kind, "host": given.URL, "password": given.KEY, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{kind.upper()}", json.dumps(said))


@pytest.mark.parametrize("kind", NAMED)
def test_a_connection_of_its_types_names_the_endpoint(kind: str) -> None:
    assert kind in [one["connection-type"] for one in get_provider_info()["connection-types"]]
    endpoint = Endpoint.of(BaseHook.get_connection(kind))
    assert endpoint.model.name == "nightshift"
    assert QUESTION in langchain.chat(endpoint).invoke(QUESTION).content
    assert QUESTION in llamaindex.llm(endpoint).complete(QUESTION).text


def test_a_connection_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_BARE", json.dumps({"conn_type": "langchain", "password": given.KEY}))
    with pytest.raises(UsageError, match="names no endpoint; host is the base URL"):
        Endpoint.of(BaseHook.get_connection("bare"))


def test_the_langchain_hook_reaches_it() -> None:
    hook = LangChainHook("langchain", embedding_kwargs={"check_embedding_ctx_length": False})
    assert QUESTION in hook.get_chat_model().invoke(QUESTION).content
    assert len(hook.get_embedding_model().embed_query(QUESTION)) == 384


def test_the_llamaindex_hook_reaches_its_vectors() -> None:
    """Its `get_llm` knows OpenAI's models alone; a connection of its type is for `Endpoint.of` there."""
    hook = LlamaIndexHook("llamaindex", embedding_kwargs={"model_name": "nightshift"})
    assert len(hook.get_embedding_model().get_query_embedding(QUESTION)) == 384
    with pytest.raises(ValueError, match="Unknown model 'nightshift'"):
        hook.get_llm().complete(QUESTION)


def test_the_pydantic_ai_hook_and_its_operator_reach_it() -> None:
    agent = PydanticAIHook("pydanticai").create_agent(instructions="Be brief.")
    assert QUESTION in agent.run_sync(QUESTION).output
    context: Any = {}
    assert QUESTION in LLMOperator(task_id="ask", prompt=QUESTION, llm_conn_id="pydanticai").execute(context)


def test_the_llamaindex_operators_index_and_find_with_its_encoder(tmp_path: Path) -> None:
    model = llamaindex.embedding(Endpoint.of(BaseHook.get_connection("llamaindex")))
    texts = [{"text": "The pump is oiled every Monday.", "metadata": {}}, {"text": "The well is deep.", "metadata": {}}]
    context: Any = {}
    kept = str(tmp_path / "index")
    LlamaIndexEmbeddingOperator(task_id="embed", documents=texts, embed_model=model, persist_dir=kept).execute(context)
    asked = LlamaIndexRetrievalOperator(
        task_id="find", query=QUESTION, index_persist_dir=kept, embed_model=model, top_k=1
    )
    assert [one["text"] for one in asked.execute(context)["chunks"]] == ["The pump is oiled every Monday."]


def test_the_page_runs() -> None:
    given.run(given.page("common-ai"))
