"""What the cases of a framework are given, in its own environment, by the test that runs them (`test_frameworks`)."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import runpy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nightshift.integrations.corpus import Corpus
from nightshift.integrations.endpoint import Endpoint

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
URL = os.environ["NIGHTSHIFT_TEST_URL"]
KEY = Path("var/first.key").read_text().strip()
ENDPOINT = Endpoint(URL, KEY)
LOADED = ("langchain", "langchain_openai", "llama_index.llms.openai_like", "griptape", "airflow")  # where they are
DOCUMENTED = "http://127.0.0.1:8000/v1"  # what the pages of docs/ write


@cache
def corpus(groups: tuple[str, ...] = ("public",)) -> Corpus:
    """What is in production in the folder that the cases stand in."""
    return Corpus.released(".", groups, ENDPOINT)


def told(name: str, value: Any) -> None:
    """Tell the test that runs the cases."""
    Path(f"told-{name}.json").write_text(json.dumps(value))


def programs(name: str) -> list[Path]:
    """The programs that are written as a framework's own documentation writes them."""
    found = sorted((HERE / "programs").glob(f"{name}_*.py"))
    assert found
    return found


def page(name: str) -> Path:
    """The Python of a page in docs/, in its order, as a program for the endpoint that serves here."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{name}.md").read_text(), flags=re.S)
    assert blocks
    program = Path(f"{name}_page.py")
    program.write_text("\n".join(blocks).replace(DOCUMENTED, URL))
    return program


def run(program: Path) -> None:
    """Run a program in a process of its own, forked from one that has nothing but the framework loaded."""
    started = _FRESH.Process(target=runpy.run_path, args=(str(program),), kwargs={"run_name": "__main__"})
    started.start()
    started.join(120)
    assert started.exitcode == 0, f"{program.name} ended with {started.exitcode}"


# what the clients read when they are given no address and no key
os.environ |= {"OPENAI_BASE_URL": URL, "OPENAI_API_KEY": KEY}
_FRESH = multiprocessing.get_context("forkserver")
_FRESH.set_forkserver_preload([one for one in LOADED if find_spec(one.partition(".")[0])])
