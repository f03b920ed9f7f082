"""LangChain: the endpoint as a chat and an embedding model, a release as a retriever and as a prompt.

`ChatOpenAI` and `OpenAIEmbeddings` are LangChain's own; what is set here is what they would guess wrongly for a model
that is not OpenAI's: that a stream counts its tokens, how long the context is, and that texts are sent as texts (by
default they are cut with OpenAI's tokenizer, which is fetched from the network).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, HumanMessagePromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import Field, InstanceOf, SecretStr

from nightshift import answer
from nightshift.integrations.corpus import Corpus
from nightshift.integrations.endpoint import Endpoint
from nightshift.integrations.places import escaped
from nightshift.retrieve import EVERY, Filter, Hit


def chat(endpoint: Endpoint, **more: Any) -> ChatOpenAI:
    """The endpoint's model; `more` is ChatOpenAI's own. Raises AccessDenied, StorageError."""
    can = {"max_input_tokens": endpoint.model.context_window, "tool_calling": False}
    return ChatOpenAI(**_reached(endpoint) | {"profile": can, "stream_usage": True} | more)


def embeddings(endpoint: Endpoint, **more: Any) -> OpenAIEmbeddings:
    """The encoder of the endpoint's index; `more` is OpenAIEmbeddings' own. Raises AccessDenied, StorageError."""
    return OpenAIEmbeddings(**_reached(endpoint) | {"check_embedding_ctx_length": False} | more)


def _reached(endpoint: Endpoint) -> dict[str, Any]:
    return {"base_url": endpoint.url, "api_key": SecretStr(endpoint.key), "model": endpoint.model.name}


class Retriever(BaseRetriever):
    """The sections of a release that answer a question, best first.

    A document's id is the section's; its metadata has title, source, path, document, licence, score, and the digest and
    the version of the release.
    """

    corpus: InstanceOf[Corpus]
    k: int | None = Field(default=None, ge=1, description="Sections; as many as the release answers from when None")
    only: InstanceOf[Filter] = Field(default=EVERY, description="What is searched of what the asker may see")

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = self.corpus.search(query, self.k, self.only)
        return [
            Document(id=hit.id, page_content=hit.body, metadata=self.corpus.about(hit) | {"score": hit.score})
            for hit in found
        ]


def prompt(corpus: Corpus, sections: bool = True) -> ChatPromptTemplate:
    """The release's prompt with places for `question` and, unless it is asked closed-book, `sections`.

    Earlier turns may be given as `history`. Filled in, it is what the release is judged with (`System.messages`).
    """
    system, text = corpus.system, corpus.system.template
    said: list[BaseMessage] = []
    for turn in answer.messages(text, "", (), system.examples)[:-1]:
        said.append(_ROLES[turn["role"]](content=turn["content"]))
    asked = escaped(text.open if sections else text.closed, {"sections": "{sections}", "question": "{question}"})
    last = HumanMessagePromptTemplate.from_template(asked.strip())
    return ChatPromptTemplate.from_messages([*said, MessagesPlaceholder("history", optional=True), last])


def shown(corpus: Corpus, documents: Iterable[Document]) -> str:
    """Documents of a `Retriever` as text for the place `sections` of `prompt`."""
    hits = [Hit(one.id or "", one.metadata["title"], one.page_content, one.metadata["score"]) for one in documents]
    return corpus.shown(hits)


_ROLES: dict[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}
