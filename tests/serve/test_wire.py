"""A connection to an engine is kept for the next question, and one that is not as it should be is no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nightshift.serve import wire
from nightshift.serve.wire import Broken, Wires

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


class Engine:
    """Does what a script does for each question; `came` counts connections, `gone` is set when an asker closes one."""

    def __init__(self, script: Callable[[asyncio.StreamWriter], Any]) -> None:
        self.script, self.came, self.asked = script, 0, b""
        self.gone = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.came += 1
        try:
            while True:
                self.asked = await reader.readuntil(b"\r\n\r\n{}")
                await self.script(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            writer.close()


@asynccontextmanager
async def listening(script: Callable[[asyncio.StreamWriter], Any]) -> AsyncIterator[tuple[Engine, str]]:
    engine = Engine(script)
    async with await asyncio.start_server(engine.answer, "127.0.0.1", 0) as server:
        yield engine, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def said(*pieces: bytes) -> Callable[[asyncio.StreamWriter], Any]:
    async def script(writer: asyncio.StreamWriter) -> None:
        for one in pieces:
            writer.write(one)
            await writer.drain()

    return script


async def ask(wires: Wires, url: str, within_s: float = 5.0, gathered: bool = False) -> tuple[int, bytes]:
    deadline = asyncio.get_running_loop().time() + within_s
    one = await wires.ask(url, "/v1/chat", b"{}", {"authorization": "Bearer engine"}, deadline)
    try:
        body = b""
        while read := await one.read(gathered):
            body += read
        return one.status, body
    finally:
        wires.give_back(url, one)


@pytest.mark.parametrize("gathered", [False, True])
def test_a_connection_is_kept_for_the_next_question(gathered: bool) -> None:
    async def run() -> None:
        async with listening(said(HEAD, b"2\r\nab\r\n", b"1\r\nc\r\n", END)) as (engine, url):
            wires = Wires()
            for _ in range(3):
                assert await ask(wires, url, gathered=gathered) == (200, b"abc")
            assert engine.came == 1
            assert b"POST /v1/chat HTTP/1.1\r\nhost: 127.0.0.1" in engine.asked
            assert b"\r\nauthorization: Bearer engine\r\n" in engine.asked
            wires.close()
            await engine.gone.wait()

    asyncio.run(run())


def test_one_that_was_quiet_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with listening(said(HEAD, END)) as (engine, url):
            wires = Wires()
            await ask(wires, url)
            monkeypatch.setattr(wire, "KEPT_S", 0.0)
            await ask(wires, url)
            await engine.gone.wait()
            assert engine.came == 2
            wires.close()

    asyncio.run(run())


@pytest.mark.parametrize("pieces", [[b"this is no HTTP\r\n\r\n"], [HEAD, b"2\r\nab\r\n", b"nonsense\r\n"]])
def test_what_speaks_something_else_is_broken(pieces: list[bytes]) -> None:
    async def run() -> None:
        async with listening(said(*pieces)) as (engine, url):
            with pytest.raises(Broken):
                await ask(Wires(), url)
            await engine.gone.wait()

    asyncio.run(run())


def test_an_answer_that_nobody_asked_for_ends_a_connection() -> None:
    async def run() -> None:
        async with listening(said(HEAD + END, HEAD + END)) as (engine, url):
            wires = Wires()
            assert await ask(wires, url) == (200, b"")
            await engine.gone.wait()
            assert await ask(wires, url) == (200, b"")
            assert engine.came == 2

    asyncio.run(run())


def test_an_answer_whose_engine_closes_after_it_is_whole() -> None:
    async def closes(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + b"2\r\nab\r\n" + END)
        writer.close()

    async def run() -> None:
        async with listening(closes) as (engine, url):
            wires = Wires()
            one = await wires.ask(url, "/", b"{}", {}, asyncio.get_running_loop().time() + 5)
            while one._failed is None:  # it was closed before anybody read
                await asyncio.sleep(0)
            assert (await one.read(), await one.read()) == (b"ab", b"")
            wires.give_back(url, one)
            assert await ask(wires, url) == (200, b"ab")
            assert engine.came == 2

    asyncio.run(run())


def test_an_answer_that_breaks_off_is_broken_after_what_it_said() -> None:
    async def leaves(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"2\r\nab\r\n")
        writer.close()

    async def run() -> None:
        async with listening(leaves) as (_, url):
            one = await Wires().ask(url, "/", b"{}", {}, asyncio.get_running_loop().time() + 5)
            assert await one.read() == b"ab"
            with pytest.raises(Broken):
                await one.read()

    asyncio.run(run())


def test_an_engine_that_says_nothing_is_given_up_and_told() -> None:
    async def run() -> None:
        async with listening(said(HEAD)) as (engine, url):
            with pytest.raises(TimeoutError):
                await ask(Wires(), url, within_s=0.05)
            await engine.gone.wait()

    asyncio.run(run())


def test_one_that_is_not_wanted_any_more_ends_the_engines_work() -> None:
    async def run() -> None:
        async with listening(said(HEAD, b"2\r\nab\r\n")) as (engine, url):
            wires = Wires()
            one = await wires.ask(url, "/", b"{}", {}, asyncio.get_running_loop().time() + 5)
            assert await one.read() == b"ab"
            wires.give_back(url, one)
            await engine.gone.wait()

    asyncio.run(run())


def test_nothing_that_listens_is_broken() -> None:
    async def run() -> None:
        async with listening(said()) as (_, url):
            pass
        with pytest.raises(Broken):
            await ask(Wires(), url)

    asyncio.run(run())


def test_one_whose_last_answer_was_not_read_is_not_used_again() -> None:
    """It does not read while an answer waits to be read: the next would never come."""

    async def run() -> None:
        async with listening(said()) as (engine, url):
            wires = Wires()
            one = await wires.ask(url, "/", b"{}", {}, asyncio.get_running_loop().time() + 5)
            one.data_received(HEAD + b"%x\r\n%b\r\n" % (70_000, b"x" * 70_000) + END)  # all of it at once
            assert one.whole and one._paused
            wires.give_back(url, one)
            engine.script = said(HEAD, b"2\r\nab\r\n", END)
            assert await ask(wires, url) == (200, b"ab")
            assert engine.came == 2
            wires.close()

    asyncio.run(run())


def test_an_engine_that_says_more_than_is_read_waits() -> None:
    async def run() -> None:
        lots = b"%x\r\n%b\r\n" % (200_000, b"x" * 200_000)
        async with listening(said(HEAD, *[lots] * 200, END)) as (_, url):
            wires = Wires()
            one = await wires.ask(url, "/", b"{}", {}, asyncio.get_running_loop().time() + 30)
            while not one._paused:  # nobody reads meanwhile
                await asyncio.sleep(0)
            assert len(one._came) < 40_000_000
            body = 0
            while read := await one.read(gathered=True):
                body += len(read)
            assert body == 40_000_000
            wires.give_back(url, one)
            wires.close()

    asyncio.run(run())
