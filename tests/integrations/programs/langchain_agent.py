from langchain.agents import create_agent
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_openai import ChatOpenAI, OpenAI

agent = create_agent(ChatOpenAI(model="nightshift"), tools=[], system_prompt="You keep the mill.")
done = agent.invoke({"messages": [{"role": "user", "content": "When is the pump oiled?"}]})
print(done["messages"][-1].content)

kept = InMemoryChatMessageHistory()
chat = RunnableWithMessageHistory(ChatOpenAI(model="nightshift"), lambda session_id: kept)
for text in ("When is the pump oiled?", "And the valve?"):
    print(chat.invoke(text, config={"configurable": {"session_id": "one"}}).content)
assert len(kept.messages) == 4

print(OpenAI(model="nightshift", max_tokens=16).invoke("The pump is"))
