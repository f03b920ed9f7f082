"""A file of questions in, a file of answers out: the batch pattern, through the endpoint and all that protects it.

A question is a line of text, or a line of JSON with `question` and whatever else its owner wants back (an `id`). The
answers are JSON lines in the same order. What is answered is kept in OUT.part at once, so that a batch that was killed
goes on where it was, and OUT is there only when it is whole; a pipe or a device is written to as answers come. A
question that the endpoint refuses is an answer with an `error`; a key that is refused ends the batch.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from nightshift import commit
from nightshift.errors import AccessDenied, SourceError, StorageError, full, no_room

MODEL = "nightshift"
TRIES = 20  # of one question, while the endpoint is full, away or loading
LONGEST_PAUSE_S = 30.0
ANSWER_WITHIN_S, CONNECTED_WITHIN_S = 300.0, 5.0
KEY_REFUSED = (401, 403)
LATER = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Question:
    """One line of the file: what is asked, and what goes back with the answer."""

    text: str
    given: dict[str, Any]


def questions(path: Path) -> list[Question]:
    """The questions of a file; empty lines are none. Raises SourceError with the line of one that cannot be read."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON and texts may hold U+2028, which ends no line
    except UnicodeDecodeError:
        raise SourceError("it is not UTF-8 text", str(path), "save it as UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        given: Any = {"question": line.strip()}
        if line.lstrip().startswith("{"):
            given = {}
            with suppress(ValueError):
                given = json.loads(line)
            if not isinstance(given.get("question"), str) or not given["question"].strip():
                do = 'write {"question": "…"} there, or the question alone'
                raise SourceError("this line has no question", f"{path}:{number}", do)
        found.append(Question(given["question"], given))
    if not found:
        raise SourceError("no question is in it", str(path), "write one a line")
    return found


def run(asked: list[Question], out: Path, ask: Callable[[str], dict[str, Any]], at_once: int) -> int:
    """Answer what is not answered yet, and write `out`; how many of the answers are errors.

    Raises what `ask` raises; what was answered until then is kept for the next run. Raises SourceError, before anything
    is asked, where `out` can be no file.
    """
    if out.is_dir() or not out.parent.is_dir():
        what = "it is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise SourceError(what, str(out), "name a file in a folder that is there")
    if out.exists() and not out.is_file():
        return _poured(asked, out, ask, at_once)
    out = out.resolve()  # /dev/stdout may be a file elsewhere
    part = out.with_name(f"{out.name}.part")
    answers = _kept(part, asked)
    left = asked[len(answers) :]
    with ThreadPoolExecutor(at_once) as pool:
        for question, said in zip(left, _in_order(pool, ask, left, at_once), strict=True):
            answers.append(question.given | said)
            commit.append(part, json.dumps(answers[-1], ensure_ascii=False))
    commit.file(out, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers))
    part.unlink()
    return sum("error" in one for one in answers)


def _poured(asked: list[Question], out: Path, ask: Callable[[str], dict[str, Any]], at_once: int) -> int:
    """Write answers to a pipe or a device, each as it comes; how many are errors. Raises DiskFull, StorageError."""
    failed = 0
    with ThreadPoolExecutor(at_once) as pool, out.open("wb", buffering=0) as into:
        for question, said in zip(asked, _in_order(pool, ask, asked, at_once), strict=True):
            line = json.dumps(question.given | said, ensure_ascii=False) + "\n"
            try:
                into.write(line.encode())
            except OSError as error:
                if full(error):
                    raise no_room(str(out)) from error
                what = f"it takes no more answers ({str(error.strerror).lower()})"
                raise StorageError(what, str(out), "run it again, into a file") from error
            failed += "error" in said
    return failed


class Endpoint:
    """An endpoint, and the key that it is asked with; `say` is told, once, that it has to be waited for."""

    def __init__(
        self,
        url: str,
        key: str,
        pause: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        head = {"authorization": f"Bearer {key}"}
        within = httpx.Timeout(ANSWER_WITHIN_S, connect=CONNECTED_WITHIN_S)
        self.client = httpx.Client(base_url=url, headers=head, timeout=within)
        self.url, self.pause, self.say = url, pause, say
        self._told = threading.Lock()  # is never given back

    def ask(self, question: str) -> dict[str, Any]:
        """The answer with its release, trace and sections, or the error that it is refused with.

        Raises AccessDenied for a key that is refused, StorageError when no answer is to be had.
        """
        body = {"model": MODEL, "messages": [{"role": "user", "content": question}]}
        for tried in range(TRIES):
            wait = min(LONGEST_PAUSE_S, 0.5 * 2**tried)
            try:
                said = self.client.post("chat/completions", json=body)
                if said.status_code in KEY_REFUSED:
                    what = f"the endpoint refuses the key ({_error(said)})"
                    raise AccessDenied(what, self.url, "`nightshift keys create` makes another")
                if said.is_success:
                    return _answer(said.json())
                if said.status_code not in LATER:
                    return {"error": _error(said)}
                why = _error(said)
                with suppress(ValueError):
                    wait = min(LONGEST_PAUSE_S, float(said.headers.get("retry-after", "")))
            except httpx.TransportError as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error) or "WRONG_VERSION_NUMBER" in str(error):
                    do = "name the certificate that it is to be known by in SSL_CERT_FILE, or mend --url"
                    raise StorageError(f"its certificate does not hold ({error})", self.url, do) from None
                why = str(error) or type(error).__name__
            if self._told.acquire(blocking=False):
                self.say(f"Waiting for the endpoint at {self.url} ({why}).")
            self.pause(wait)
        raise StorageError(f"it gave no answer in {TRIES} tries", self.url, "run the same again: it goes on from here")


def _answer(body: dict[str, Any]) -> dict[str, Any]:
    about = body["nightshift"]
    sections = [{name: one[name] for name in ("id", "title", "source")} for one in about["sections"]]
    said = {name: about[name] for name in ("release", "version", "trace", "abstained") if name in about}
    return {"answer": body["choices"][0]["message"]["content"], **said, "sections": sections}


def _error(said: httpx.Response) -> str:
    """The endpoint's code for what is wrong."""
    with suppress(ValueError, KeyError, TypeError):
        return str(said.json()["error"]["code"])
    return f"status {said.status_code}"


def _kept(part: Path, asked: list[Question]) -> list[dict[str, Any]]:
    """Answers of an earlier run, as far as they are to the same questions."""
    found: list[dict[str, Any]] = []
    lines = part.read_bytes().splitlines() if part.is_file() else []
    for line, question in zip(lines, asked, strict=False):
        with suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and {key: said.get(key) for key in question.given} == question.given:
                found.append(said)
                continue
        break
    if len(found) < len(lines):
        commit.file(part, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in found), 0o600)
    return found


def _in_order(
    pool: ThreadPoolExecutor, ask: Callable[[str], dict[str, Any]], left: Iterable[Question], at_once: int
) -> Iterator[dict[str, Any]]:
    """Answers in the order of the questions, of which a few are asked ahead."""
    ahead = []
    for question in left:
        ahead.append(pool.submit(ask, question.text))
        if len(ahead) == at_once:
            yield ahead.pop(0).result()
    for one in ahead:
        yield one.result()
