from langchain.chat_models import init_chat_model
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

model = ChatOpenAI(model="nightshift", temperature=0, max_tokens=16, timeout=30, max_retries=2)

said = model.invoke([("system", "Translate into French."), ("human", "The pump is oiled every Monday.")])
print(said.content, said.usage_metadata)

turns = [SystemMessage("Be brief."), HumanMessage("Hello"), AIMessage("Hi"), HumanMessage("When is the pump oiled?")]
print(model.invoke(turns).content)

model = init_chat_model("nightshift", model_provider="openai", temperature=0.7)
for chunk in model.stream("When is the pump oiled?"):
    print(chunk.content, end="|")
print([one.content for one in model.batch(["Why is the valve green?", "How deep is the well?"])])
