"""What a person wants to know of a night, in plain sentences, from its night.json alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from nightshift.registry import CANARY

Night = Mapping[str, Any]
UNCHANGED = ("unchanged", "cached")
UNDECIDED = "INCONCLUSIVE"
READS = "reads.open"
EXPOSURE = "canary_exposure.closed"
MEASURED = {  # column → metric
    "choices": "choice_accuracy.closed",
    "asked otherwise": "robust_accuracy.closed",
    "with sections": "choice_accuracy.open",
    "F1": "token_f1.open",
    "reads": READS,
    "recall": "recall.open",
    "bits": "answer_bits.open",
    "secrets": EXPOSURE,
}


def summary(night: Night, before: Night | None = None, up: bool = False) -> str:
    """The whole of it: documents, models, systems, verdict, release, what to type next.

    Args:
        night: the record.
        before: the record of the night before it.
        up: whether the endpoint runs.
    """
    parts = [heading(night), corpus(night, before), models(night), systems(night), decision(night), left_out(night)]
    return "\n".join(line for part in [*parts, following(night, up)] for line in part)


def heading(night: Night) -> Iterator[str]:
    """How many stages did something, and what went wrong."""
    outcomes = [str(stage["outcome"]) for stage in night["stages"].values()]
    counted = [f"{outcomes.count(kind)} {kind}" for kind in dict.fromkeys(["ran", "cached", "unchanged", *outcomes])]
    yield f"Night {night['run']}: {', '.join(one for one in counted if not one.startswith('0 ')) or 'nothing ran'}."
    for name, stage in night["stages"].items():
        if stage.get("sentence"):
            yield f"What went wrong: {name} ({stage['outcome']}): {stage['sentence']}"
    if night.get("sentence"):
        yield f"What went wrong: {night['sentence']}"


def corpus(night: Night, before: Night | None) -> Iterator[str]:
    """What the documents became, and what was taken out and why."""
    read, clean, unique = (_of(night, stage) for stage in ("ingest", "sanitise", "dedup"))
    if read:
        yield f"Documents: {read['files']:,} files became {read['sections']:,} sections{_since(night, before)}."
        for reason, count in read["quarantined"].items():
            told = "1 file is" if count == 1 else f"{count:,} files are"
            yield f"  {told} in quarantine: {reason} (data/raw/quarantine.parquet names them)."
        if unread := _of(night, "discover").get("not_read"):
            told = ", ".join(f"{count:,} {ending}" for ending, count in unread.items())
            yield f"  No reader for: {told}."
    if clean:
        masked = ", ".join(f"{count:,} {kind}" for kind, count in clean["masked"].items())
        yield f"  Masked: {masked or 'nothing'}. Too short and dropped: {clean['dropped']['too-short']:,}."
    if unique:
        dropped = unique["dropped"]
        yield (
            f"  Repeats dropped: {dropped.get('exact-repeat', 0):,} exact, {dropped.get('near-repeat', 0):,} near; "
            f"{unique['sections']:,} sections are left."
        )
    train, pairs, items = (_of(night, stage) for stage in ("decontaminate", "augment", "items"))
    if train:
        hidden = train["dropped"].get("not-public", 0)
        leaked = sum(train["dropped"].values()) - hidden
        kept_back = f", {hidden:,} because not everyone may see them" if hidden else ""
        yield (
            f"  To train on: {train['sections']:,} sections "
            f"({leaked:,} taken out, since an item asks about them{kept_back})."
        )
    if pairs:
        made = f"{pairs['pairs']:,} pairs" if "pairs" in pairs else f"no pairs ({pairs['absent']})"
        sides = ", ".join(f"{sum(kinds.values())} on the {side} side" for side, kinds in sorted(items.items()))
        yield f"  Questions: {made} to train on; {sides}."
    bias = _of(night, "debias").get("association")
    if bias:
        measured = bias if isinstance(bias, str) else f"{len(bias)} measured and weighed against"
        yield f"  Associations of groups: {measured}."


def models(night: Night) -> Iterator[str]:
    """Which base models there were, and which was chosen."""
    own, chosen = _of(night, "pretrain"), _of(night, "choose")
    if "bits_per_byte" in own:
        yield f"Our own model: {own['parameters']:,} parameters, {own['bits_per_byte']:.3g} bits per byte."
    elif own:
        yield f"Our own model: none ({own['absent']})."
    for name, value in (chosen.get("worth") or {}).items():
        mark = " (chosen)" if name == chosen["chosen"] else ""
        yield f"  Base model {name}: worth {value:.3g} on the evidence{mark}."


def systems(night: Night) -> Iterator[str]:
    """What was tried, by the validation items: a line each, a column for what was measured of any."""
    found = {name.partition("@")[2]: said for name, said in _each(night, "evaluate@") if said}
    columns = {text: key for text, key in MEASURED.items() if any(key in said for said in found.values())}
    width = max(map(len, found), default=0)
    if found:
        yield "Systems, on the validation items:"
        yield "  ".join([" " * (width + 2), *columns]).rstrip()
    for name, said in found.items():
        cells = [(f"{said[key]:.3f}" if key in said else "").rjust(len(text)) for text, key in columns.items()]
        if "absent" in said:
            cells = [f"none ({said['absent']})"]
        yield "  ".join([f"  {name:<{width}}", *cells]).rstrip()
    if READS in columns.values():
        yield "  Reads: the share of invented facts that it finds in the sections that it is shown."
    if EXPOSURE in columns.values():
        yield "  Secrets: bits by which invented ones stand out; 1.4 when none was learned by heart, 6 when all were."
    picked = _of(night, "select")
    if picked:
        yield f"  Picked: {picked['winner']}." if "winner" in picked else f"  Picked: none, since {picked['absent']}."


def decision(night: Night) -> Iterator[str]:
    """The verdict with its reasons, and what was let out."""
    gate = _of(night, "gate")
    if gate:
        yield f"Verdict: {gate['verdict']}."
        for candidate, reasons in gate["reasons"].items():
            yield from (f"  {candidate}: {reason}" for reason in reasons)
    if night.get("released"):
        deployed = f", and is in {night['deployed']} as {night['version']}" if night.get("deployed") else ""
        role = _of(night, "release").get("role", "")
        yield f"Released: {role} {night['released'][:12]}{deployed}."
    elif gate:
        yield "Released: nothing new."
    if said := night.get("window"):
        yield f"  {_window(said)}"
    if approved := night.get("approved"):
        yield f"Approved since: {approved['version']} {_became(approved)}."
    elif why := night.get("why_not_deployed"):
        yield f"Not deployed: {str(why).rstrip('.')}."
    if night.get("published"):
        state = "published as" if night["new"] else "nothing differs from"
        yield f"Commit: {state} {night['published'][:10]} on branch nightly."
    if night.get("refused"):
        yield f"It could not be pushed and waits for the next night: {night['refused'].splitlines()[0]}"


def left_out(night: Night) -> Iterator[str]:
    """What the budgets of params.yaml left out."""
    places = [
        ("discover", "left_out", "files not read (sources.max_files)"),
        ("pack", "documents_left_out", "documents not read by pretraining (pack.tokens)"),
        ("adapt-lora", "pairs_left_out", "pairs not trained on (adapt.lora.tokens)"),
        ("assess@", "left_out", "items not asked of base models (assess)"),
        ("evaluate@", "left_out", "validation items not asked (evaluate.tokens)"),
        ("judge", "left_out", "test items not asked (evaluate.judge_tokens)"),
    ]
    told = []
    for stage, key, text in places:
        if count := max((said.get(key) or 0 for _, said in _each(night, stage)), default=0):
            told.append(f"{count:,} {text}")
    index = _of(night, "index")
    if index and index["sections"] > index["dense_sections"]:
        told.append(f"{index['sections'] - index['dense_sections']:,} sections without a vector (index.dense_tokens)")
    if told:
        yield f"Left out by budget: {'; '.join(told)}."


def following(night: Night, up: bool) -> Iterator[str]:
    """What to type next."""
    kept = _of(night, "release")
    undecided = kept.get("released") is False and kept.get("verdict_on_it") == UNDECIDED
    if night.get("deployed") or night.get("approved"):
        first = "ask the endpoint, which is up," if up else "`make up`, then ask the endpoint"
        yield f"Next: {first} with the key that {'`make up`' if up else 'it'} names."
    elif night.get("frozen"):
        yield "Next: a night that finds the way free deploys it; `nightshift slo show` says how things stand."
    elif undecided and night.get("published"):
        told = f'`nightshift approve --reason "…"` lets the {kept["role"]} out'
        yield f"Next: {told}, if you know better than the gate could."
    elif night.get("published"):
        yield "Next: `nightshift pull` brings these results into your tree; `dvc metrics diff` compares."


def _became(approved: Mapping[str, Any]) -> str:
    """What became of a release that a person let out."""
    if why := approved.get("went_back"):
        return f"went back, since {str(why).rstrip('.')}"
    tried = approved["environment"] == CANARY
    return "is tried by the endpoint" if tried else f"is in {approved['environment']}"


def _window(said: Mapping[str, Any]) -> str:
    """In how long a text the release found a planted fact."""
    if why := said.get("why_not"):
        return f"Its window was not measured: {str(why).rstrip('.')}."
    context, held = said["context"], said["certified"]
    if held is None:
        return (
            "It finds a planted fact in no text, not even in the shortest: `nightshift certify` shows at which depths."
        )
    rest = "" if said["reached"] else " (night.certify_tokens did not reach further)"
    return f"It finds a planted fact in texts of up to {held:,} of {context:,} tokens{rest}."


def _since(night: Night, before: Night | None) -> str:
    now, then = _of(night, "ingest"), _of(before, "ingest") if before else {}
    if not then:
        return ""
    files, sections = (now[key] - then[key] for key in ("files", "sections"))
    stage = night["stages"].get("ingest") or {}
    if stage.get("outcome") in UNCHANGED:
        return " (as the night before)"
    anew = (stage.get("work") or {}).get("computed", 0)
    return f" (since the night before {files:+,} files, {sections:+,} sections; {anew:,} files new or changed)"


def _each(night: Night, stage: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A stage, or with `stage@` every one of a matrix in the night's order; each with its metrics."""
    for name in night["stages"]:
        if name == stage or (stage.endswith("@") and name.startswith(stage)):
            yield name, _of(night, name)


def _of(night: Night | None, stage: str) -> Mapping[str, Any]:
    """The metrics of a stage; empty where it did not get so far."""
    return ((night or {"stages": {}})["stages"].get(stage) or {}).get("metrics") or {}
