"""A small Llama that does what a model that follows instructions does, and knows nothing planted.

It is trained in half a minute on one core, on conversations in the very layout that `answer.messages` makes: to take
the value out of the best of the sections that it is shown, to answer in the form of the examples before the question
where there are any and in a plain sentence where there are none, and to know other facts by heart in both wordings.
Names, values and a form's marks are drawn anew for every row, so that only the trick can be learned.

Every word is one token. A layout is tokenised once, with slots, and a batch of it is filled in by a table look-up, so
that making 23,000 conversations costs next to nothing beside training on them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightshift.answer import Message, Template, messages
from nightshift.base.candidate import PLAIN_CHAT
from nightshift.sections import Compute
from tests.adapt.planted import ATTRIBUTES, SHOTS, Fact

END, UNKNOWN = "<|end|>", "<|unknown|>"
SECTIONS = 2  # that a question is answered from
MARKS = ("[(<#*=", "])>!;~")  # with which the form of examples may begin and end
SLOTS = [Fact(f"Name{n}", f"attribute{n}", f"Value{n}") for n in range(SECTIONS + SHOTS.shots)]
SLOT_MARKS = ("{", "}")
STEPS, ROWS = 240, 32  # optimizer steps, and conversations of each kind in one
RATE, WARMUP, COOL = 5e-3, 50, 80  # peak learning rate, and the first and last steps over which it rises and falls
IGNORED = -100


@dataclass(frozen=True)
class Layout:
    """A conversation with slots, as token ids; the last `answer` of them are what is learned."""

    ids: Any  # (length,)
    answer: int


class Vocabulary:
    """A tokenizer that has every word of the conversations as one token."""

    def __init__(self, texts: Sequence[str]) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        split = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")])
        words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
        entries = {word: place for place, word in enumerate([END, UNKNOWN, *words])}
        tokenizer = Tokenizer(models.WordLevel(entries, unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = split
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, unk_token=UNKNOWN)
        self.tokenizer.chat_template = PLAIN_CHAT

    def ids(self, words: Sequence[str]) -> Any:
        """(words,) the token of each."""
        import torch

        return torch.tensor(self.tokenizer.convert_tokens_to_ids(list(words)))

    def layout(self, asked: Sequence[Message], answer: str) -> Layout:
        """The conversation that ends with this answer."""
        import torch

        prompt = self.tokenizer.apply_chat_template(list(asked), add_generation_prompt=True, return_dict=False)
        said = [*self.tokenizer(answer, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]
        return Layout(torch.tensor([*prompt, *said]), len(said))


class Conversations:
    """What the model is trained on: batches of every layout, with the words of all facts in the slots."""

    def __init__(self, template: Template, known: Sequence[Fact], planted: Sequence[Fact]) -> None:
        everything = [*known, *planted]
        texts = [template.system, template.closed, template.open, template.section, PLAIN_CHAT, *MARKS, *SLOT_MARKS]
        texts += ["system user assistant", *ATTRIBUTES]
        for fact in [*everything, *SLOTS]:
            texts += [fact.question, fact.reworded, fact.body, plainly(fact)]
        self.vocabulary = Vocabulary(texts)
        ids = self.vocabulary.ids
        self.known, self.all, self.slots = (
            [ids([getattr(fact, part) for fact in some]) for part in ("name", "attribute", "value")]
            for some in (known, everything, SLOTS)
        )
        self.marks, self.slot_marks = [ids(list(some)) for some in MARKS], ids(SLOT_MARKS)
        self.closed, self.open, self.shown = self._layouts(template)

    def _layouts(self, template: Template) -> tuple[list[Layout], list[Layout], list[Layout]]:
        """By heart (a training of an adapter has no system turn); from sections; from sections, after examples."""
        fact, layout = SLOTS[0], self.vocabulary.layout
        sections = [(one.name, one.body) for one in SLOTS[:SECTIONS]]
        examples = [{"question": one.question, "answer": marked(one)} for one in SLOTS[SECTIONS:]]
        closed, opened, shown = [], [], []
        for question in (fact.question, fact.reworded):
            asked = messages(template, question, [])
            closed += [layout(asked, plainly(fact)), layout(asked[-1:], plainly(fact))]
            opened.append(layout(messages(template, question, sections), plainly(fact)))
            shown.append(layout(messages(template, question, sections, examples), marked(fact)))
        return closed, opened, shown

    def batches(self, steps: int) -> Iterator[list[tuple[Any, Any]]]:
        """For every step (ids, labels) of each kind, its layouts taking turns."""
        turns = zip(*map(itertools.cycle, (self.closed, self.open, self.shown)), strict=True)
        for closed, opened, shown in itertools.islice(turns, steps):
            yield [self._filled(closed, by_heart=True), self._filled(opened), self._filled(shown)]

    def _filled(self, layout: Layout, by_heart: bool = False) -> tuple[Any, Any]:
        """(ROWS, length) ids and labels; by heart the first slot is a known fact, else what is drawn."""
        import torch

        table = torch.arange(len(self.vocabulary.tokenizer)).repeat(ROWS, 1)
        for slots, words in zip(self.slots, self.all, strict=True):
            table[:, slots] = _drawn(words, len(slots))
        for slot, words in zip(self.slot_marks, self.marks, strict=True):
            table[:, slot] = _drawn(words, 1)[:, 0]
        if by_heart:
            fact = torch.randint(len(self.known[0]), (ROWS,))
            for slots, words in zip(self.slots, self.known, strict=True):
                table[:, slots[0]] = words[fact]
        ids = table.gather(1, layout.ids.expand(ROWS, -1))
        labels = ids.clone()
        labels[:, : -layout.answer] = IGNORED
        return ids, labels


def plainly(fact: Fact) -> str:
    """The answer as the model gives it by itself."""
    return f"It is {fact.value}."


def marked(fact: Fact) -> str:
    """The answer between the slots of two marks."""
    return SLOT_MARKS[0] + fact.value + SLOT_MARKS[1]


def make(
    out: Path, template: Template, known: Sequence[Fact], planted: Sequence[Fact], seed: int, compute: Compute
) -> None:
    """Train the model and write it as a Hugging Face folder; of the planted facts it sees the words alone."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(compute.threads)
    torch.manual_seed(seed)
    conversations = Conversations(template, known, planted)
    tokenizer = conversations.vocabulary.tokenizer
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        initializer_range=0.08,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    _train(model, conversations)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _train(model: Any, conversations: Conversations) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    for step, batches in enumerate(conversations.batches(STEPS)):
        optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / WARMUP, (STEPS - step) / COOL)
        for ids, labels in batches:
            (model(input_ids=ids, labels=labels).loss / len(batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def _drawn(words: Any, count: int) -> Any:
    """(ROWS, count) of these words, in every row different places of them."""
    import torch

    return words[torch.rand(ROWS, len(words)).argsort(dim=1)[:, :count]]
