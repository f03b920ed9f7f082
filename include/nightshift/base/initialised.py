"""A small Llama with random weights and a tokenizer of single bytes: for tests, and honest about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nightshift.sections import InitialisedModel

SPECIAL = ("<|end|>", "<|pad|>")


def make(model: InitialisedModel, draft: Path) -> dict[str, Any]:
    """Write weights and tokenizer; returns facts."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(model.seed)
    tokenizer = _bytes()
    tokenizer.save_pretrained(draft)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=model.width,
        intermediate_size=2 * model.width,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        max_position_embeddings=model.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(draft)
    origin = f"random weights from seed {model.seed}"
    return {"origin": origin, "licence": "Apache-2.0", "training_data": "none"}


def _bytes() -> Any:
    """Byte-level BPE without merges: 256 entries and two special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[1])
