import os

from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

at = {"api_base": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"]}
Settings.llm = OpenAILike(model="nightshift", is_chat_model=True, context_window=16_384, **at)
Settings.embed_model = OpenAILikeEmbedding(model_name="nightshift", **at)

documents = [Document(text="The pump is oiled every Monday."), Document(text="The well is forty metres deep.")]
index = VectorStoreIndex.from_documents(documents)

answer = index.as_query_engine(similarity_top_k=1).query("When is the pump oiled?")
print(answer)
assert answer.source_nodes[0].node.get_content() == "The pump is oiled every Monday."
index.as_query_engine(streaming=True).query("When is the pump oiled?").print_response_stream()

for mode in ("context", "condense_question", "condense_plus_context"):
    engine = index.as_chat_engine(chat_mode=mode)
    print(engine.chat("When is the pump oiled?"))
    print(engine.chat("And how deep is the well?"))
