"""What params.yaml may hold: one class a section, in the order of the night.

Every field says its unit and its range. Values stand in params.yaml alone, so that what DVC compares is all that
counts; defaults there are for what a source leaves out.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from zoneinfo import available_timezones

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nightshift.params import Section, Strict
from nightshift.sources import FolderSource, PackagesSource, S3Source

Share = Annotated[float, Field(ge=0, le=1)]
Price = Annotated[float, Field(ge=0)]


class Night(Section):
    """When the scheduler starts a night by itself. No stage reads it."""

    name: ClassVar[str] = "night"
    schedule: str | None = Field(description="Cron expression of the nightly run; null for none")
    timezone: str = Field(description="IANA time zone that the expression is read in")
    deadline_hours: float | None = Field(
        gt=0, description="Hours after which a night that runs is told of; null: never"
    )
    prices: dict[str, Price] = Field(description="Price of a slot of a pool for an hour, in any one currency")
    certify_tokens: int = Field(ge=0, description="Tokens to read, at most, to find a release's true window; 0: not")
    keep_nights: int | None = Field(ge=1, description="Nights whose data stay, beside all releases; null keeps all")
    keep_gb: float | None = Field(gt=0, description="GB that all which stays may take, before older nights go; or null")

    @field_validator("schedule")
    @classmethod
    def _cron(cls, value: str | None) -> str | None:
        from croniter import croniter

        if value is not None and not croniter.is_valid(value):
            raise ValueError(f"{value!r} is no cron expression, like '0 2 * * *'")
        return value

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError(f"{value!r} is no IANA time zone, like Europe/Berlin")
        return value


class Sources(Section):
    """Where documents come from, in order of rank: of near-equal documents the earlier source's stays."""

    name: ClassVar[str] = "sources"
    items: list[Annotated[PackagesSource | FolderSource | S3Source, Field(discriminator="kind")]] = Field(
        min_length=1, description="The sources, first is preferred"
    )
    max_file_bytes: int = Field(gt=0, description="Larger files go to quarantine, bytes")
    max_files: int | None = Field(default=None, ge=1, description="Files, at most, in order of hash; null for all")

    @field_validator("items")
    @classmethod
    def _named_apart(cls, items: list[Any]) -> list[Any]:
        names = [one.name for one in items]
        if twice := next((one for one in names if names.count(one) > 1), None):
            raise ValueError(f"two sources are named {twice!r}; give each a name of its own")
        return items


class Sanitise(Section):
    """What a section must be to stay, and what is taken out of it."""

    name: ClassVar[str] = "sanitise"
    min_characters: int = Field(ge=1, description="Shorter bodies go, characters")
    boilerplate_documents: int = Field(
        ge=2, description="A line of 20 characters or more that stands in this many documents is boilerplate"
    )
    max_dropped: Share = Field(description="More than this share of sections dropped: the stage refuses")


class Dedup(Section):
    """When two sections are one."""

    name: ClassVar[str] = "dedup"
    threshold: float = Field(gt=0, le=1, description="Jaccard similarity of word shingles from which two are equal")
    permutations: int = Field(ge=16, le=1024, description="Permutations of MinHash")
    shingle_words: int = Field(ge=1, le=32, description="Words in a shingle")
    max_dropped: Share = Field(description="More than this share of sections dropped: the stage refuses")


class Split(Section):
    """Which documents are held out. A document's side is a hash of its id and the salt."""

    name: ClassVar[str] = "split"
    validation: Share = Field(description="Share of documents that choose between systems")
    test: Share = Field(description="Share of documents that the gate asks about")
    salt: str = Field(min_length=1, description="Another salt is another split")

    @model_validator(mode="after")
    def _room_to_train(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on; make them smaller")
        return self


class Items(Section):
    """Questions for each held-out side."""

    name: ClassVar[str] = "items"
    choices: int = Field(ge=0, description="Multiple-choice items a side, at most")
    retrievals: int = Field(ge=0, description="Retrieval items a side, at most")
    answers: int = Field(ge=0, description="Items with a free answer a side, at most")
    distractors: int = Field(ge=1, le=7, description="Wrong choices beside the right one")
    per_document: int = Field(ge=1, description="Items of one kind from one document, at most")


class Decontaminate(Section):
    """What leaves the training side because an item asks about it."""

    name: ClassVar[str] = "decontaminate"
    ngram_words: int = Field(ge=5, le=50, description="Words in a shared run that counts as a leak")
    max_holders: int = Field(ge=1, description="A run that more documents hold is common speech, not a leak")
    max_dropped: Share = Field(description="More than this share of training sections leaking: the stage refuses")


class Debias(Section):
    """Association of group terms, and weights against it."""

    name: ClassVar[str] = "debias"
    groups: dict[str, list[str]] = Field(min_length=2, description="Group → its terms, lower case, whole words")
    attributes: dict[str, list[str]] = Field(min_length=1, description="Attribute → its terms, lower case")
    min_mentions: int = Field(ge=1, description="Fewer sections that name a group: too few to measure")
    max_weight: float = Field(ge=1, description="A section weighs at most this, and at least its inverse")


class Augment(Section):
    """Question-and-answer pairs for training, taken from sections."""

    name: ClassVar[str] = "augment"
    max_pairs: int = Field(ge=0, description="Pairs, at most")
    per_document: int = Field(ge=1, description="Pairs from one document, at most")
    rank: int = Field(ge=1, description="A pair stays when BM25 finds its own section among this many")
    max_answer_characters: int = Field(ge=20, description="Longer answers are cut at a sentence, characters")


class Tokenizer(Section):
    """Byte-level BPE of our own line of models."""

    name: ClassVar[str] = "tokenizer"
    vocabulary: int = Field(ge=260, le=65_535, description="Entries, special tokens included; packed as uint16")
    min_characters: int = Field(ge=0, description="Less training text than this: absent, and pretraining with it")


class Pack(Section):
    """How much text pretraining reads."""

    name: ClassVar[str] = "pack"
    tokens: int = Field(ge=1, description="Training tokens, at most: documents in order of hash(id), the last is cut")
    validation_tokens: int = Field(ge=1, description="Tokens held out of training, at most")
    min_tokens: int = Field(ge=0, description="Fewer than this: absent")


class Pretrain(Section):
    """A Llama-shaped model of our own and its training."""

    name: ClassVar[str] = "pretrain"
    engine: Literal["deepspeed", "torch"] = Field(description="Who holds the optimizer; the loop is the same")
    zero_stage: Literal[0, 1, 2, 3] = Field(description="DeepSpeed's ZeRO stage: 0 shards nothing")
    width: int = Field(ge=16, description="Hidden size")
    layers: int = Field(ge=1, description="Transformer blocks")
    heads: int = Field(ge=1, description="Attention heads; width is a multiple")
    kv_heads: int = Field(ge=1, description="Key-value heads; heads is a multiple")
    feed_forward: int = Field(ge=16, description="Width of the gated feed-forward layer")
    context: int = Field(ge=16, description="Tokens a sequence")
    sequences_per_step: int = Field(ge=1, description="Sequences a step, over all processes")
    tokens: int = Field(ge=1, description="Tokens to train on, repeats counted")
    learning_rate: float = Field(gt=0, lt=1, description="Peak of the schedule")
    warmup: Share = Field(description="Share of steps over which the rate rises from 0; it then falls as a cosine")
    weight_decay: float = Field(ge=0, lt=1, description="Decoupled weight decay, on matrices alone")
    clip: float = Field(gt=0, description="Largest norm of the gradient")
    save_every: int = Field(ge=1, description="Steps between checkpoints")
    max_epochs: float = Field(gt=0, description="Passes over the packed tokens, at most")
    seed: int = Field(ge=0, description="Of initial weights and of the order of sequences")

    @field_validator("heads", "kv_heads")
    @classmethod
    def _divides(cls, value: int, info: ValidationInfo) -> int:
        whole = {"heads": "width", "kv_heads": "heads"}[str(info.field_name)]
        if info.data.get(whole, 0) % value:
            raise ValueError(f"{value} does not divide {whole}, which is {info.data[whole]}")
        return value


class GgufModel(Strict):
    """A GGUF file inside an installed package."""

    kind: Literal["gguf"]
    package: str = Field(description="Distribution that carries it, at the version of the lock")
    file: str = Field(description="Path of the file inside the distribution")


class FolderModel(Strict):
    """A Hugging Face folder on a disk or under an S3 prefix."""

    kind: Literal["folder"]
    location: str = Field(description="Path relative to NIGHTSHIFT_SOURCES, or s3://bucket/prefix")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of its model.safetensors: the pin")


class HubModel(Strict):
    """A model of the Hugging Face hub that this machine has already; nothing is fetched at run time."""

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[^/]+/[^/]+$", description="owner/name")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$", description="Commit: the pin")


class InitialisedModel(Strict):
    """Random weights of a Llama shape with a tokenizer of single bytes: for tests, never good."""

    kind: Literal["initialised"]
    width: int = Field(ge=16, description="Hidden size")
    layers: int = Field(ge=1, description="Transformer blocks")
    heads: int = Field(ge=1, description="Attention heads")
    context: int = Field(ge=64, description="Tokens that it can read")
    seed: int = Field(ge=0, description="Of the weights")


class Candidate(Section):
    """Base models that others made."""

    name: ClassVar[str] = "candidate"
    models: dict[str, Annotated[GgufModel | FolderModel | HubModel | InitialisedModel, Field(discriminator="kind")]] = (
        Field(min_length=1, description="Name → where it comes from; the names are dvc.yaml's")
    )


class Assess(Section):
    """The small run behind the questions that are asked of a base model."""

    name: ClassVar[str] = "assess"
    tokens: int = Field(ge=1, description="Tokens that each model reads, at most")
    items: int = Field(ge=1, description="Choice items of the validation side, at most, in order of hash(id)")
    bias_pairs: int = Field(ge=1, description="Pairs of sentences that differ in a group term, at most")


class Choose(Section):
    """What an answer to each question is worth."""

    name: ClassVar[str] = "choose"
    transparent: float = Field(ge=0, description="Weight: transparent and interpretable?")
    robust: float = Field(ge=0, description="Weight: tested on robust scenarios?")
    accessible: float = Field(ge=0, description="Weight: training data accessible?")
    unbiased: float = Field(ge=0, description="Weight: data free of bias?")
    countered: float = Field(ge=0, description="Weight: did its makers counter bias?")
    quality: float = Field(ge=0, description="Weight of the share of validation choices answered rightly")


class Index(Section):
    """Search over all current sections."""

    name: ClassVar[str] = "index"
    dense_tokens: int = Field(ge=0, description="Tokens that the encoder reads, at most, in order of hash(id)")
    first_tokens: int = Field(ge=8, le=512, description="Tokens of a section that its vector stands for")
    dense_weights: list[Share] = Field(min_length=1, description="Weights of the dense side that are tried; 0 is BM25")
    depth: int = Field(ge=1, description="Ranks of each side that are fused")
    min_questions: int = Field(ge=0, description="Fewer validation questions than this: BM25 alone")


class Prompt(Section):
    """Examples in the prompt."""

    name: ClassVar[str] = "adapt.prompt"
    shots: int = Field(ge=1, le=16, description="Examples")
    max_characters: int = Field(ge=40, description="Question and answer of one example together, characters")
    min_pairs: int = Field(ge=1, description="Fewer pairs than this: absent")


class Lora(Section):
    """Low-rank adapters on all linear layers, loss on the answer alone."""

    name: ClassVar[str] = "adapt.lora"
    rank: int = Field(ge=1, le=256, description="Rank of each update")
    alpha: float = Field(gt=0, description="Scale: the update counts alpha / rank")
    dropout: Share = Field(description="On the adapter's input, while training")
    lr: float = Field(gt=0, description="Peak learning rate; at ten times QLoRA's 2e-4 SmolLM2 forgot to read")
    tokens: int = Field(ge=1, description="Training tokens, at most, repeats counted")
    max_epochs: float = Field(gt=0, description="Passes over the pairs, at most")
    batch: int = Field(ge=1, description="Pairs a step")
    max_tokens: int = Field(ge=32, description="Longer pairs are left out, tokens")
    min_pairs: int = Field(ge=1, description="Fewer pairs than this: absent")
    save_every: int = Field(ge=1, description="Steps between checkpoints")
    seed: int = Field(ge=0, description="Of the adapter's weights and the order of pairs")


class System(Section):
    """What stands around a model when it answers."""

    name: ClassVar[str] = "system"
    context: int = Field(ge=64, description="Tokens of prompt and answer together")
    sections: int = Field(ge=0, description="Sections that a question is answered from")
    section_tokens: int = Field(ge=16, description="Tokens of each section that are shown, at most")
    max_new_tokens: int = Field(ge=1, description="Tokens of an answer, at most")

    def exceeds(self, context: int, examples: int = 0) -> str:
        """How a model of this context falls short, with so many tokens of examples; "" when it does not."""
        around = 150 + examples  # prompt, titles and question take about 150
        needed = self.sections * self.section_tokens + self.max_new_tokens + around
        return "" if context >= needed else f"reads {context} tokens, and a question with its sections takes {needed}"


class Evaluate(Section):
    """How much is asked of each system."""

    name: ClassVar[str] = "evaluate"
    tokens: int = Field(ge=1, description="Tokens that each system reads for the validation side, at most")
    judge_tokens: int = Field(ge=1, description="Tokens that each system reads for the test side, at most")
    generated: int = Field(ge=0, description="Answers of the validation side that are generated one by one, at most")
    judge_generated: int = Field(ge=0, description="The same of the test side")
    engine_items: int = Field(ge=0, description="Of these, answered by the serving engine too")
    retrieval_k: int = Field(ge=1, description="A retrieval item is right when its section is among this many")


class Compute(Section):
    """What every stage that computes with torch runs on."""

    name: ClassVar[str] = "compute"
    device: Literal["cpu", "cuda"] = Field(description="Where tensors live")
    threads: int = Field(ge=1, le=256, description="Threads of torch and of tokenizers in a stage")
    workers: int = Field(ge=1, le=64, description="Copies of a model that are asked side by side; they share `threads`")
    dtype: Literal["bfloat16", "float32"] = Field(description="Of activations; weights train in float32")

    @property
    def threads_each(self) -> int:
        """Threads of one of the workers."""
        return max(1, self.threads // self.workers)
