"""Load a model, and ask it how likely a text is or what it says next: the one code path for both.

Log-likelihoods are sums over the tokens of an assistant's turn, in nats. What several choices share is read once, and
they are read together after it: that takes a quarter of the time, and differs from reading everything each time by up
to 2 nats in bfloat16, so it is the only way here. Answers are greedy and generated one at a time: batching changed a
quarter to a half of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift.errors import ModelUnsafe
from nightshift.sections import Compute

Message = dict[str, str]
UNREAD = -1e4  # nats of whatever is said to a conversation that is longer than the model reads


@dataclass
class Model:
    """A loaded model; `tokens` counts what it has read and written."""

    model: Any
    tokenizer: Any
    context: int
    tokens: int = 0

    @classmethod
    def load(cls, base: Path, adapter: Path | None, compute: Compute) -> Model:
        """Load weights from safetensors, with a peft adapter where there is one, for one of compute.workers.

        Raises ModelUnsafe.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(compute.threads_each)
        if not (base / "model.safetensors").is_file():
            raise ModelUnsafe("its weights are not one safetensors file", str(base), "convert them")
        dtype = getattr(torch, compute.dtype)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, use_safetensors=True)
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
        tokenizer = AutoTokenizer.from_pretrained(base)
        return cls(model.eval().to(compute.device), tokenizer, int(model.config.max_position_embeddings))

    @property
    def parameters(self) -> int:
        """How many numbers the model has."""
        return sum(one.numel() for one in self.model.parameters())

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The conversation as token ids, up to where the assistant speaks."""
        ids = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
        return list(ids)

    def choices(self, messages: Sequence[Message], choices: Sequence[str]) -> list[float]:
        """Log-likelihood of each text as the assistant's turn, nats; UNREAD after more than the model reads."""
        import torch

        prefix = self.prompt(messages)
        if len(prefix) >= self.context:
            return [UNREAD] * len(choices)
        ids = [self._cut(choice, len(prefix)) for choice in choices]
        with torch.inference_mode():
            read = self.model(input_ids=self._ids([prefix]), use_cache=True, logits_to_keep=1)
            first = torch.log_softmax(read.logits[0, -1].float(), dim=-1)
            totals = torch.stack([first[one[0]] for one in ids])
            if max(map(len, ids)) > 1:
                totals = totals + self._after(read.past_key_values, ids)
        self.tokens += len(prefix) + sum(map(len, ids))
        return [float(total) for total in totals]

    def text(self, text: str) -> float:
        """Log-likelihood of a text from its second token on, nats."""
        import torch

        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"][: self.context]
        with torch.inference_mode():
            logits = self.model(input_ids=self._ids([ids])).logits[0, :-1].float()
        self.tokens += len(ids)
        wanted = torch.tensor(ids[1:], device=logits.device)
        return float(torch.log_softmax(logits, dim=-1).gather(1, wanted.unsqueeze(1)).sum())

    def generate(self, messages: Sequence[Message], max_new_tokens: int) -> str:
        """The greedy answer; "" to more than the model reads."""
        import torch

        prefix = self.prompt(messages)
        if len(prefix) >= self.context:
            return ""
        ids = self._ids([prefix])
        end = self.tokenizer.eos_token_id
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                max_new_tokens=min(max_new_tokens, self.context - len(prefix)),
                eos_token_id=end,
                pad_token_id=end,
            )
        self.tokens += int(out.shape[1])
        return str(self.tokenizer.decode(out[0, len(prefix) :], skip_special_tokens=True)).strip()

    def _after(self, cache: Any, ids: list[list[int]]) -> Any:
        """Log-likelihood of each choice's tokens from its second on, (choices,).

        Right padding is never looked at: attention is causal, and what stands on it is not summed.
        """
        import torch

        longest = max(map(len, ids))
        padded = self._ids([one + [0] * (longest - len(one)) for one in ids])  # (choices, longest)
        cache.batch_repeat_interleave(len(ids))
        logits = self.model(input_ids=padded[:, :-1], past_key_values=cache, use_cache=True).logits.float()
        each = torch.log_softmax(logits, dim=-1).gather(2, padded[:, 1:].unsqueeze(2)).squeeze(2)
        lengths = torch.tensor([len(one) - 1 for one in ids], device=each.device)
        inside = torch.arange(longest - 1, device=each.device) < lengths.unsqueeze(1)
        return torch.where(inside, each, 0.0).sum(dim=1)

    def _cut(self, choice: str, length: int) -> list[int]:
        ids: list[int] = self.tokenizer(choice, add_special_tokens=False)["input_ids"][: self.context - length]
        return ids

    def _ids(self, ids: list[list[int]]) -> Any:
        import torch

        return torch.tensor(ids, device=self.model.device)
