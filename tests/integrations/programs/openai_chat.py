from openai import OpenAI

client = OpenAI()

answer = client.chat.completions.create(
    model="nightshift",
    messages=[
        {"role": "developer", "content": "You answer like a keeper of a mill."},
        {"role": "user", "content": "When is the pump oiled?"},
    ],
)
print(answer.choices[0].message.content)
assert answer.usage is not None and answer.usage.total_tokens > 0

turns = [{"role": "user", "content": "When is the pump oiled?"}, answer.choices[0].message]
turns.append({"role": "user", "content": [{"type": "text", "text": "And the valve?"}]})
print(client.chat.completions.create(model="nightshift", messages=turns, temperature=0.2).choices[0].message.content)
