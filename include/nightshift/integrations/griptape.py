"""Griptape: the endpoint as prompt and embedding driver, a release as a vector store, and a RAG engine on top of both.

The drivers of the endpoint are Griptape's own for OpenAI, with a tokenizer that needs no network and with what the
model cannot do (native tools, JSON schemas) switched to Griptape's way of asking for it in words. The vector store is
searched as the endpoint searches: by the question, not by its vector alone, so that ids and scores are the index's. It
is read-only: what a release answers from is made at night.
"""

from __future__ import annotations

from typing import Any, NoReturn

import openai
from attrs import Factory, define, field
from griptape.artifacts import ImageArtifact, TextArtifact
from griptape.common import Reference, observable
from griptape.drivers.embedding import BaseEmbeddingDriver
from griptape.drivers.embedding.openai import OpenAiEmbeddingDriver
from griptape.drivers.prompt import BasePromptDriver
from griptape.drivers.prompt.openai import OpenAiChatPromptDriver
from griptape.drivers.vector import BaseVectorStoreDriver
from griptape.engines.rag import RagEngine
from griptape.engines.rag.modules import PromptResponseRagModule, VectorStoreRetrievalRagModule
from griptape.engines.rag.stages import ResponseRagStage, RetrievalRagStage
from griptape.tokenizers import SimpleTokenizer

from nightshift.errors import AccessDenied, UsageError
from nightshift.integrations.corpus import Corpus
from nightshift.integrations.endpoint import Endpoint
from nightshift.integrations.observability import carrying
from nightshift.retrieve import EVERY, Filter, Hit

CHARACTERS_A_TOKEN = 3  # at least, of English; Griptape counts in whole ones
ANSWER_TOKENS = 256  # that are kept free in the window for an answer


def prompt_driver(endpoint: Endpoint, **more: Any) -> OpenAiChatPromptDriver:
    """The endpoint's model; `more` is OpenAiChatPromptDriver's own. Raises AccessDenied, StorageError."""
    can = {"use_native_tools": False, "structured_output_strategy": "rule"}
    return OpenAiChatPromptDriver(**_reached(endpoint) | can | more)


def embedding_driver(endpoint: Endpoint, **more: Any) -> OpenAiEmbeddingDriver:
    """The encoder of the endpoint's index; `more` is OpenAiEmbeddingDriver's own. Raises AccessDenied, StorageError."""
    return OpenAiEmbeddingDriver(**_reached(endpoint) | more)


def _reached(endpoint: Endpoint) -> dict[str, Any]:
    """What every driver of the endpoint is given: its client sends the current trace along."""
    window = endpoint.model.context_window
    tokenizer = SimpleTokenizer(
        characters_per_token=CHARACTERS_A_TOKEN, max_input_tokens=window, max_output_tokens=ANSWER_TOKENS
    )
    client = openai.OpenAI(base_url=endpoint.url, api_key=endpoint.key, http_client=carrying())
    return {"model": endpoint.model.name, "tokenizer": tokenizer, "client": client}


@define(kw_only=True)
class IndexEmbeddingDriver(BaseEmbeddingDriver):
    """The encoder of a release's own index: in this process, or at the endpoint where the corpus has one."""

    corpus: Corpus = field()
    model: str = field(default="nightshift-index")

    def try_embed_chunk(self, chunk: str, **_: Any) -> list[float]:
        """The vector of a text's first tokens."""
        index = self.corpus.system.index
        return [float(one) for one in index.encoder.encode([chunk], index.first_tokens)[0]]


@define(kw_only=True)
class VectorStoreDriver(BaseVectorStoreDriver):
    """The sections of a release, as a vector store that is only read; a namespace is a source.

    Args:
        corpus: whose sections.
        only: what is searched of what the asker may see.
        cut: whether a text is what the release shows its model of the section, and no more.
    """

    corpus: Corpus = field()
    only: Filter = field(default=EVERY)
    cut: bool = field(default=False)
    embedding_driver: BaseEmbeddingDriver = field(
        default=Factory(lambda self: IndexEmbeddingDriver(corpus=self.corpus), takes_self=True)
    )

    @observable
    def query(
        self,
        query: str | TextArtifact | ImageArtifact,
        *,
        count: int | None = None,
        namespace: str | None = None,
        include_vectors: bool = False,
        **_: Any,
    ) -> list[BaseVectorStoreDriver.Entry]:
        """The best `count` sections for a question. Raises UsageError for an image."""
        if isinstance(query, ImageArtifact):
            raise UsageError("an image", "query()", "a release is searched by text")
        found = self.corpus.search(str(query), count, self._within(namespace))
        return [self._entry(hit, include_vectors, hit.score) for hit in found]

    def query_vector(
        self,
        vector: list[float],
        *,
        count: int | None = None,
        namespace: str | None = None,
        include_vectors: bool = False,
        **_: Any,
    ) -> list[BaseVectorStoreDriver.Entry]:
        """The `count` sections nearest to a vector, scored by their inner product with it."""
        found = self.corpus.nearest(vector, count, self._within(namespace))
        return [self._entry(hit, include_vectors, hit.score) for hit in found]

    def load_entry(self, vector_id: str, *, namespace: str | None = None) -> BaseVectorStoreDriver.Entry | None:
        """The section with this id, where the asker may see it."""
        hit = self.corpus.section(vector_id)
        return None if hit is None or namespace not in (None, hit.source) else self._entry(hit)

    def load_entries(self, *, namespace: str | None = None) -> list[BaseVectorStoreDriver.Entry]:
        """Every section that the asker may see."""
        return [self._entry(hit) for hit in self.corpus.sections(self._within(namespace))]

    def upsert_vector(self, vector: list[float], **_: Any) -> NoReturn:
        """Raises AccessDenied: documents come into a release at night."""
        raise AccessDenied("a release is only read", self.corpus.digest[:12], "give the document to a source")

    def delete_vector(self, vector_id: str) -> NoReturn:
        """Raises AccessDenied: documents go out of a release at night."""
        raise AccessDenied("a release is only read", self.corpus.digest[:12], "take the document out of its source")

    def _within(self, namespace: str | None) -> Filter:
        """The store's filter, and the source that a namespace is."""
        if namespace is None:
            return self.only
        known = self.only.sources
        sources = [namespace] if known is None or namespace in known else []
        return Filter(sources, self.only.path, self.only.title, self.only.licences)

    def _entry(self, hit: Hit, include_vectors: bool = True, score: float | None = None) -> BaseVectorStoreDriver.Entry:
        about = self.corpus.about(hit)
        source = Reference(id=about["document"], title=hit.title, source=f"{hit.source}: {hit.path}")
        text = self.corpus.shown([hit]).strip() if self.cut else f"{hit.title}\n{hit.body}"
        artifact = TextArtifact(text, id=hit.id, name=hit.title, reference=source, meta=about)
        vector = self.corpus.vector(hit) if include_vectors else None
        meta = about | {"artifact": artifact.to_json()}
        return self.Entry(id=hit.id, vector=vector, score=score, meta=meta, namespace=hit.source)


def rag_engine(
    corpus: Corpus, driver: BasePromptDriver, k: int | None = None, only: Filter = EVERY, **more: Any
) -> RagEngine:
    """Answers a question from the release's sections; `more` is PromptResponseRagModule's own."""
    store = VectorStoreDriver(corpus=corpus, only=only, cut=True)
    found = VectorStoreRetrievalRagModule(vector_store_driver=store, query_params={"count": k})
    said = PromptResponseRagModule(prompt_driver=driver, **{"answer_token_offset": ANSWER_TOKENS} | more)
    return RagEngine(
        retrieval_stage=RetrievalRagStage(retrieval_modules=[found]),
        response_stage=ResponseRagStage(response_modules=[said]),
    )
