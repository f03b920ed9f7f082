"""Programs as the clients' own documentation writes them, with address, key and model changed and nothing else.

openai and LangChain read the address from OPENAI_BASE_URL and the key from OPENAI_API_KEY, LlamaIndex and Griptape are
given both. Three changes more are needed wherever OpenAI's tokenizer cannot be fetched, and stand in docs/:
`check_embedding_ctx_length=False` (LangChain), a `tokenizer` (Griptape), `is_chat_model=True` (LlamaIndex).
"""
