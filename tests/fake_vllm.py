#!/usr/bin/env python
"""A program `vllm` for tests: it takes the flags that vLLM 0.33 has, and no other, and speaks its protocol.

The flags are those of vllm/entrypoints/openai/cli_args.py and vllm/engine/arg_utils.py. As there, `--middleware` names
a class that is put around everything else, the key is VLLM_API_KEY and guards /v1 alone, and an adapter is asked for by
a name of its own. Every answer says what it was started with and asked, as JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


def arguments() -> argparse.Namespace:
    """vLLM's own, as far as they are used; argparse ends with 2 at any other."""
    flags = argparse.ArgumentParser(prog="vllm", allow_abbrev=False)
    serve = flags.add_subparsers(dest="command", required=True).add_parser("serve", allow_abbrev=False)
    serve.add_argument("model_tag")
    for name in ("host", "served-model-name", "generation-config", "middleware"):
        serve.add_argument(f"--{name}", required=True)
    for name in ("port", "seed", "max-model-len", "max-num-seqs"):
        serve.add_argument(f"--{name}", type=int, required=True)
    serve.add_argument("--dtype", choices=["auto", "half", "float16", "bfloat16", "float", "float32"], required=True)
    serve.add_argument("--enable-lora", action="store_true")
    serve.add_argument("--max-loras", type=int)
    serve.add_argument("--max-lora-rank", type=int, choices=[1, 8, 16, 32, 64, 128, 256, 320, 512])
    serve.add_argument("--lora-modules", nargs="+", type=json.loads)
    serve.add_argument("--enable-force-include-usage", action="store_true")
    serve.add_argument("--disable-uvicorn-access-log", action="store_true")
    return flags.parse_args()


def refusal(asked: dict[str, Any]) -> str | None:
    """What vLLM refuses of a request: a token that the model does not have, and a shape that is none."""
    if outside := [token for token in asked.get("logit_bias") or {} if not (token.isdigit() and int(token) < 1000)]:
        return f"token_id(s) {outside} in logit_bias contain out-of-vocab token ids"
    kind = (asked.get("response_format") or {"type": "text"}).get("type")
    return None if kind in ("text", "json_object") else f"response_format {kind!r}"


def streamed() -> Iterator[str]:
    """One word."""
    for delta, finish in (({"role": "assistant", "content": "Hello"}, None), ({}, "stop")):
        yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}]})}\n\n"
    yield "data: [DONE]\n\n"


def main() -> None:
    """Serve."""
    said = arguments()
    key = os.environ["VLLM_API_KEY"]
    adapters = [one["name"] for one in said.lora_modules or []]

    async def answer(request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {key}":
            return JSONResponse({"error": "Unauthorized"}, 401)
        asked = await request.json()
        if asked["model"] not in [said.served_model_name, *adapters]:
            return JSONResponse({"error": {"message": "The model does not exist."}}, 404)
        if wrong := refusal(asked):  # with a path of its own, as a real traceback has
            message = f"{wrong} ({__file__})"
            return JSONResponse({"error": {"message": message, "type": "BadRequestError", "code": 400}}, 400)
        if asked.get("stream"):
            return StreamingResponse(streamed(), media_type="text/event-stream")
        text = json.dumps({"argv": sys.argv[1:], "asked": asked, "environment": dict(os.environ)})
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return JSONResponse({"object": "chat.completion", "model": asked["model"], "choices": [choice]})

    async def healthy(request: Request) -> Response:
        return Response()

    async def invoke(request: Request) -> Response:
        return Response("vLLM guards /v1 alone")

    routes = [
        Route("/v1/chat/completions", answer, methods=["POST"]),
        Route("/health", healthy),
        Route("/invocations", invoke, methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    module, _, name = said.middleware.rpartition(".")
    app.add_middleware(getattr(importlib.import_module(module), name))
    uvicorn.run(app, host=said.host, port=said.port, log_level="warning")


if __name__ == "__main__":
    main()
