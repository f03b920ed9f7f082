"""Programs as Langfuse's documentation writes them, for its real SDK 5; run in an environment of its own.

Each prints one JSON object of what it saw, and is asked for by name: `python langfuse_cases.py observe`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def observe() -> dict[str, Any]:
    """Observations with a session, a user and usage; scores; all of it flushed."""
    from langfuse import get_client, propagate_attributes

    langfuse = get_client()
    about = propagate_attributes(user_id="u1", session_id="s1", tags=["docs"])
    with langfuse.start_as_current_observation(as_type="span", name="process-request") as span, about:
        with langfuse.start_as_current_observation(as_type="generation", name="llm", model="nightshift") as one:
            one.update(input="Hi", output="Hello", usage_details={"input": 3, "output": 1})
        langfuse.score_current_trace(name="helpful", value=1.0)
        langfuse.create_score(trace_id=span.trace_id, name="rating", value=0.5, data_type="NUMERIC")
        trace = span.trace_id
    langfuse.flush()
    return {"trace": trace, "auth": langfuse.auth_check()}


def prompts() -> dict[str, Any]:
    """A prompt made, got by label and by version, its labels moved."""
    from langfuse import get_client

    langfuse = get_client()
    served = langfuse.get_prompt("nightshift/served", type="chat")  # what `nightshift langfuse push` put there
    compiled = served.compile(question="Who oils the pump?", sections="Pump\nOiled by the keeper.")
    langfuse.create_prompt(name="mine", type="text", prompt="Say {{what}}.", labels=["staging"])
    langfuse.create_prompt(name="mine", type="text", prompt="Tell {{what}}.", labels=[])
    moved = langfuse.update_prompt(name="mine", version=2, new_labels=["staging"])
    latest = langfuse.get_prompt("mine", label="staging", cache_ttl_seconds=0)
    try:
        langfuse.get_prompt("nothing", max_retries=0)
        missing = "found"
    except Exception as error:  # whatever the SDK raises: its name is what is looked at
        missing = type(error).__name__
    return {
        "version": served.version,
        "compiled": compiled,
        "moved": moved.version,
        "text": latest.compile(what="it"),
        "missing": missing,
    }


def experiment() -> dict[str, Any]:
    """The same question asked of every item of a dataset that `nightshift langfuse experiment` made."""
    from langfuse import Evaluation, get_client

    langfuse = get_client()
    dataset = langfuse.get_dataset(os.environ["DATASET"])

    def evaluated(*, output: str, expected_output: str, **_: Any) -> Evaluation:
        return Evaluation(name="exact", value=float(output == expected_output))

    def task(*, item: Any, **_: Any) -> str:
        return str(item.expected_output if item.id == "one" else "no")

    result = dataset.run_experiment(name="by hand", run_name="by hand 1", task=task, evaluators=[evaluated])
    langfuse.flush()
    return {"id": result.experiment_id, "items": len(result.item_results), "dataset": dataset.id}


def dropin() -> dict[str, Any]:
    """OpenAI's client from Langfuse, whole and streamed, in a trace that the endpoint goes on with."""
    from langfuse import get_client, propagate_attributes
    from langfuse.openai import openai
    from opentelemetry import propagate

    langfuse = get_client()
    client = openai.OpenAI(base_url=os.environ["ENDPOINT"], api_key=os.environ["KEY"])
    messages = [{"role": "user", "content": "Who oils the pump?"}]
    with langfuse.start_as_current_observation(as_type="span", name="app") as span, propagate_attributes(user_id="u1"):
        headers: dict[str, str] = {}
        propagate.inject(headers)
        whole = client.chat.completions.create(
            model="nightshift", messages=messages, name="whole", extra_headers=headers
        )
        stream = client.chat.completions.create(
            model="nightshift", messages=messages, stream=True, stream_options={"include_usage": True}, name="streamed"
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        trace = span.trace_id
    langfuse.flush()
    about = whole.model_extra["nightshift"]
    return {"trace": trace, "answer": whole.choices[0].message.content, "streamed": text, "about": about}


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]]()))
