"""What a client needs to know of the endpoint is asked of it, and what is wrong is a sentence."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from nightshift.answer import System
from nightshift.errors import AccessDenied, StorageError, UsageError
from nightshift.integrations.corpus import Corpus
from nightshift.integrations.endpoint import Endpoint
from nightshift.port import unused
from nightshift.retrieve import Filter
from tests.integrations.asked import ASKED
from tests.integrations.release import FIRST_TOKENS
from tests.integrations.served import Running


@pytest.fixture(scope="module")
def endpoint(running: Running) -> Endpoint:
    return Endpoint(running.url, running.key)


@dataclass
class Connection:
    """As Airflow has one."""

    host: str | None
    password: str | None


def test_the_model_and_its_window_are_what_is_served(endpoint: Endpoint, running: Running) -> None:
    system = System.open(running.checkout.folder / "system")
    assert (endpoint.model.name, endpoint.model.context_window) == ("nightshift", system.settings["context"])
    assert running.key not in repr(endpoint)


@pytest.mark.parametrize(("question", "k", "only", "groups"), ASKED)
def test_with_the_endpoints_vectors_the_index_finds_the_same(
    endpoint: Endpoint, running: Running, question: str, k: int | None, only: Filter, groups: tuple[str, ...]
) -> None:
    here, there = (Corpus.open(running.checkout.folder, groups, one) for one in (None, endpoint))
    before = len(running.recorder.sent)
    assert there.search(question, k, only) == here.search(question, k, only)
    assert [one.path for one in running.recorder.sent[before:]][-1] == "/v1/embeddings"


def test_a_long_question_is_cut_where_the_index_cuts_it(endpoint: Endpoint, running: Running) -> None:
    question = "When is the old pump of the mill oiled by its keeper? " * 9
    here, there = (Corpus.open(running.checkout.folder, endpoint=one) for one in (None, endpoint))
    assert here.system.index.encoder.lengths([question])[0] > FIRST_TOKENS
    assert there.search(question) == here.search(question)
    assert there.system.index.encoder.lengths([question]) == here.system.index.encoder.lengths([question])


def test_many_texts_are_asked_for_in_parts(endpoint: Endpoint) -> None:
    texts = [f"The {number}th pump" for number in range(70)]
    made = endpoint.vectors(texts)
    assert made.shape == (70, 384)
    assert (made[69] == endpoint.vectors(texts[69:])[0]).all()


def test_an_airflow_connection_names_an_endpoint(running: Running) -> None:
    assert Endpoint.of(Connection(f"{running.url}/", running.key)).model.name == "nightshift"
    for host, password in ((None, "key"), ("127.0.0.1", "key"), (running.url, None)):
        with pytest.raises(UsageError, match="host is the base URL"):
            Endpoint.of(Connection(host, password))


def test_what_is_wrong_is_a_sentence(endpoint: Endpoint) -> None:
    with pytest.raises(AccessDenied, match=r"/v1/models: This key is not valid; give a key that may\."):
        _ = replace(endpoint, key="ns_wrong").model
    with pytest.raises(StorageError, match="gave no answer"):
        _ = replace(endpoint, url=f"http://127.0.0.1:{unused()}/v1").model
    with pytest.raises(StorageError, match="nothing at this address; look whether its address"):
        _ = replace(endpoint, url=endpoint.url.removesuffix("/v1")).model
