import openai
from openai import OpenAI

client = OpenAI()

for model in client.models.list():
    print(model.id)
print(client.models.retrieve("nightshift").id)

whole = client.chat.completions.with_raw_response.create(
    model="nightshift", messages=[{"role": "user", "content": "When is the pump oiled?"}]
)
print(whole.headers.get("x-request-id"), whole.parse().choices[0].message.content)

print(client.completions.create(model="nightshift", prompt="When is the pump oiled?", max_tokens=7).choices[0].text)

try:
    client.with_options(max_retries=5, timeout=20).chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Hello"}]
    )
except openai.APIStatusError as error:
    print(error.status_code, error.response.headers.get("content-type"))
else:
    raise AssertionError("a model of that name answered")
