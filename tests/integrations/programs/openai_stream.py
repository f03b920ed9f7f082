from openai import OpenAI

client = OpenAI()
turns = [{"role": "user", "content": "When is the pump oiled?"}]

stream = client.chat.completions.create(
    model="nightshift", messages=turns, stream=True, stream_options={"include_usage": True}
)
usage = None
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="")
    usage = chunk.usage
assert usage is not None and usage.completion_tokens > 0

with client.chat.completions.stream(model="nightshift", messages=turns) as events:
    for event in events:
        if event.type == "content.delta":
            print(event.delta, end="")
    assert events.current_completion_snapshot.choices[0].finish_reason in ("stop", "length")
