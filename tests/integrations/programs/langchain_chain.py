from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

prompt = ChatPromptTemplate.from_messages([("system", "Translate into {language}."), ("human", "{text}")])
chain = prompt | ChatOpenAI(model="nightshift") | StrOutputParser()
print(chain.invoke({"language": "Italian", "text": "The pump is oiled."}))
for part in chain.stream({"language": "German", "text": "The pump is oiled."}):
    print(part, end="")
