import asyncio
import os

from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    model="nightshift",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key=os.environ["OPENAI_API_KEY"],
    context_window=16_384,
    is_chat_model=True,
    is_function_calling_model=False,
)
print(llm.complete("The pump is "))
for part in llm.stream_complete("When is the pump oiled?"):
    print(part.delta, end="")
turns = [
    ChatMessage(role="system", content="You keep the mill."),
    ChatMessage(role="user", content="When is the pump oiled?"),
]
print(llm.chat(turns).message.content)


def multiply(one: float, other: float) -> float:
    """Multiply two numbers."""
    return one * other


async def main() -> None:
    print(await ReActAgent(tools=[multiply], llm=llm).run("How deep is the well?"))


asyncio.run(main())
