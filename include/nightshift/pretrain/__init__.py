"""A model of our own from our own documents: tokenizer, packed tokens, weights."""
