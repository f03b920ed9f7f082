from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

texts = ["The pump is oiled every Monday.", "The valve is green.", "The well is forty metres deep."]
embeddings = OpenAIEmbeddings(model="nightshift", check_embedding_ctx_length=False)
retriever = InMemoryVectorStore.from_texts(texts, embeddings).as_retriever(search_kwargs={"k": 1})
assert retriever.invoke("When is the pump oiled?")[0].page_content == texts[0]

prompt = ChatPromptTemplate.from_template("Answer from this alone:\n{context}\n\nQuestion: {question}")
asked = {
    "context": retriever | (lambda found: "\n\n".join(one.page_content for one in found)),
    "question": RunnablePassthrough(),
}
print((asked | prompt | ChatOpenAI(model="nightshift") | StrOutputParser()).invoke("When is the pump oiled?"))
