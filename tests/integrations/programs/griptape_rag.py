import os

from griptape.artifacts import TextArtifact
from griptape.drivers.embedding.openai import OpenAiEmbeddingDriver
from griptape.drivers.prompt.openai import OpenAiChatPromptDriver
from griptape.drivers.vector.local import LocalVectorStoreDriver
from griptape.engines.rag import RagContext, RagEngine
from griptape.engines.rag.modules import PromptResponseRagModule, VectorStoreRetrievalRagModule
from griptape.engines.rag.stages import ResponseRagStage, RetrievalRagStage
from griptape.structures import Agent
from griptape.tokenizers import SimpleTokenizer
from griptape.tools import RagTool

at = {"base_url": os.environ["OPENAI_BASE_URL"], "api_key": os.environ["OPENAI_API_KEY"], "model": "nightshift"}
tokenizer = SimpleTokenizer(characters_per_token=4, max_input_tokens=16_000, max_output_tokens=256)
prompt = OpenAiChatPromptDriver(tokenizer=tokenizer, use_native_tools=False, **at)

store = LocalVectorStoreDriver(embedding_driver=OpenAiEmbeddingDriver(tokenizer=tokenizer, **at))
store.upsert_collection(
    {"mill": [TextArtifact("The pump is oiled every Monday."), TextArtifact("The well is forty metres deep.")]}
)
search = VectorStoreRetrievalRagModule(vector_store_driver=store, query_params={"count": 1, "namespace": "mill"})
engine = RagEngine(
    retrieval_stage=RetrievalRagStage(retrieval_modules=[search]),
    response_stage=ResponseRagStage(response_modules=[PromptResponseRagModule(prompt_driver=prompt)]),
)
done = engine.process(RagContext(query="When is the pump oiled?"))
print(done.outputs[0].to_text())
assert done.text_chunks[0].value == "The pump is oiled every Monday."

tool = RagTool(description="Knows the mill", rag_engine=engine)
Agent(prompt_driver=prompt, tools=[tool]).run("When is the pump oiled?")
