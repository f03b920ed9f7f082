"""Servers that bench/engines.py compares with, each run by the Python of an environment of its own.

    python bench/peers.py ctranslate2 MODEL PORT COMPUTE_TYPE
    python bench/peers.py llama.cpp MODEL.gguf PORT
    python bench/peers.py openvino GRAPH BASE PORT PRECISION

They answer `POST /v1/completions` as a stream, with usage at its end, on two threads. llama.cpp's server is its own (16
slots); CTranslate2 has none, so this gives it one that takes all requests that wait as one batch, which is what the
library can do: nothing joins a batch that runs.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

THREADS = 2
SLOTS = 16
TOGETHER_S = 0.1  # those who come within that are one batch


def llama_cpp(model: str, port: str) -> None:
    """Serve a GGUF file with llama.cpp's own server."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.port, params.hostnames = model, int(port), ["127.0.0.1"]
    params.n_ctx, params.n_parallel = 2048 * SLOTS, SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.cache_prompt, params.cache_ram_mib, params.verbosity = False, 0, 1
    server = xllamacpp.Server(params)
    assert server.listening_address
    threading.Event().wait()


def openvino(graph: str, base: str, port: str, precision: str) -> None:
    """Serve a graph as an engine does, in another precision."""
    import uvicorn

    from nightshift import batching
    from nightshift.completions import Completions

    batching.PRECISION = precision
    app = Completions(batching.Batch(Path(graph), THREADS, SLOTS), Path(base), "release", 2048).application()
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


class Batches:
    """CTranslate2's generator; all requests that wait become its next batch."""

    def __init__(self, model: str, compute_type: str) -> None:
        import ctranslate2
        from tokenizers import Tokenizer

        self.generator = ctranslate2.Generator(model, compute_type=compute_type, intra_threads=THREADS, inter_threads=1)
        self.tokenizer = Tokenizer.from_file(str(Path(model) / "tokenizer.json"))
        self.waiting: queue.Queue[tuple[dict[str, Any], queue.Queue[int | None]]] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            asked = [self.waiting.get()]
            threading.Event().wait(TOGETHER_S)
            while len(asked) < SLOTS and not self.waiting.empty():
                asked.append(self.waiting.get())
            prompts = [self.tokenizer.encode(body["prompt"], add_special_tokens=False).tokens for body, _ in asked]

            def told(step: Any, asked: Any = asked) -> bool:
                asked[step.batch_id][1].put(step.token_id)
                return False

            limit = max(body["max_tokens"] for body, _ in asked)
            self.generator.generate_batch(
                prompts, max_length=limit, sampling_topk=1, include_prompt_in_result=False, end_token=[2], callback=told
            )
            for _, said in asked:
                said.put(None)


def ctranslate2(model: str, port: str, compute_type: str) -> None:
    """Serve a converted model with CTranslate2."""
    batches = Batches(model, compute_type)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_POST(self) -> None:
            from tokenizers.decoders import DecodeStream

            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            said: queue.Queue[int | None] = queue.Queue()
            batches.waiting.put((body, said))
            self.send_response(200)
            self.end_headers()
            decoder, tokens = DecodeStream([], skip_special_tokens=True), 0
            while (one := said.get()) is not None:
                tokens += 1
                text = decoder.step(batches.tokenizer, one) or ""
                self._say({"choices": [{"index": 0, "text": text, "finish_reason": None}]})
            self._say({"choices": [], "usage": {"completion_tokens": tokens}})

        def _say(self, chunk: dict[str, Any]) -> None:
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 8 * SLOTS  # of the five that it has by itself sixteen who come at once overflow

    Server(("127.0.0.1", int(port)), Handler).serve_forever()


if __name__ == "__main__":
    {"ctranslate2": ctranslate2, "llama.cpp": llama_cpp, "openvino": openvino}[sys.argv[1]](*sys.argv[2:])
