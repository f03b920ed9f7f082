import asyncio

from openai import AsyncOpenAI

client = AsyncOpenAI()


async def main() -> None:
    turns = [{"role": "user", "content": "When is the pump oiled?"}]
    answer = await client.chat.completions.create(model="nightshift", messages=turns)
    print(answer.choices[0].message.content)
    async for chunk in await client.chat.completions.create(model="nightshift", messages=turns, stream=True):
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="")


asyncio.run(main())
