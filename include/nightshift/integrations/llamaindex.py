"""LlamaIndex: the endpoint as a model and as an embedding, a release as a retriever, and engines on top of both.

`OpenAILike` and its embedding are LlamaIndex's own, with the context window that the endpoint says: LlamaIndex packs
sections into the window that it believes in. The query engine asks with the release's prompt; the chat engine keeps
earlier turns. Both give the sections as source nodes, with ids and scores of the index.
"""

from __future__ import annotations

import asyncio
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.llms import LLM
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeRelationship, NodeWithScore, QueryBundle, RelatedNodeInfo, TextNode
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

from nightshift import answer
from nightshift.integrations.corpus import Corpus
from nightshift.integrations.endpoint import Endpoint
from nightshift.integrations.places import escaped, renamed
from nightshift.retrieve import EVERY, Filter, Hit


def llm(endpoint: Endpoint, **more: Any) -> OpenAILike:
    """The endpoint's model; `more` is OpenAILike's own. Raises AccessDenied, StorageError."""
    said = endpoint.model
    can = {"is_chat_model": True, "is_function_calling_model": False, "context_window": said.context_window}
    return OpenAILike(**{"api_base": endpoint.url, "api_key": endpoint.key, "model": said.name} | can | more)


def embedding(endpoint: Endpoint, **more: Any) -> OpenAILikeEmbedding:
    """The encoder of the endpoint's index; `more` is OpenAILikeEmbedding's own. Raises AccessDenied, StorageError."""
    about = {"api_base": endpoint.url, "api_key": endpoint.key, "model_name": endpoint.model.name}
    return OpenAILikeEmbedding(**about | more)


class Retriever(BaseRetriever):
    """The sections of a release that answer a question, best first.

    A node's id is the section's, its source the document; its metadata is that of `Corpus.about`. A model is shown the
    title and the text, as the release's prompt has them.

    Args:
        corpus: whose sections.
        k: how many; as many as the release answers from when None.
        only: what is searched of what the asker may see.
        cut: whether a text ends where the release cuts it for its model.
    """

    def __init__(
        self, corpus: Corpus, k: int | None = None, only: Filter = EVERY, cut: bool = False, **more: Any
    ) -> None:
        super().__init__(**more)
        self.corpus, self.k, self.only, self.cut = corpus, k, only, cut

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = self.corpus.search(query_bundle.query_str, self.k, self.only)
        return [NodeWithScore(node=self._node(hit), score=hit.score) for hit in found]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)

    def _node(self, hit: Hit) -> TextNode:
        about = self.corpus.about(hit)
        system = self.corpus.system
        return TextNode(
            id_=hit.id,
            text=system.cut(hit.body) if self.cut else hit.body,
            metadata=about,
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=about["document"])},
            excluded_llm_metadata_keys=[name for name in about if name != "title"],
            excluded_embed_metadata_keys=[name for name in about if name != "title"],
            metadata_template="{value}",
            text_template=escaped(system.template.section, {"title": "{metadata_str}", "body": "{content}"}),
        )


def prompt(corpus: Corpus) -> ChatPromptTemplate:
    """The release's prompt with LlamaIndex's places: `context_str` for the sections, `query_str` for the question."""
    system = corpus.system
    turns = answer.messages(system.template, "", (), system.examples)[:-1]
    said = [ChatMessage(role=turn["role"], content=turn["content"]) for turn in turns]
    asked = renamed(system.template.open, {"sections": "{context_str}", "question": "{query_str}"}).strip()
    return ChatPromptTemplate([*said, ChatMessage(role="user", content=asked)])


def query_engine(
    corpus: Corpus, model: LLM, k: int | None = None, only: Filter = EVERY, **more: Any
) -> RetrieverQueryEngine:
    """Answers one question from the release's sections; `more` is `RetrieverQueryEngine.from_args`' own."""
    found = Retriever(corpus, k, only, cut=True)
    return RetrieverQueryEngine.from_args(found, llm=model, **{"text_qa_template": prompt(corpus)} | more)


def chat_engine(
    corpus: Corpus, model: LLM, k: int | None = None, only: Filter = EVERY, **more: Any
) -> ContextChatEngine:
    """Answers turn after turn, each from its own sections; `more` is `ContextChatEngine.from_defaults`' own."""
    said = {"system_prompt": corpus.system.template.system.strip() or None}
    return ContextChatEngine.from_defaults(Retriever(corpus, k, only, cut=True), llm=model, **said | more)
