"""Model card and bill of materials of a release, rendered from its facts and from nothing else.

The card follows the headings of Mitchell et al. 2019; the bill is CycloneDX 1.7 (JSON) with the model as a
machine-learning component, its data sets and its libraries. Neither holds a date or a serial number of its own: the
number is made from the digests, so that the same release has the same papers. The release holds both whole; where
architecture and training are private, `public` and `public_bill` are what is shown to others: what it is for, what its
answers come from, under which licences, and that the gate let it out.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]
USE = [
    "## Intended use",
    "",
    "Questions about the documents below, answered from the sections that the index finds for them.",
    "",
]
LIMITS = ["", "## Limits", "", "It answers from documents that may be wrong, and it may be wrong about them.", ""]


def markdown(facts: Facts) -> str:
    """The model card."""
    system, base, gate = facts["system"], facts["base"], facts["gate"]
    lines = [
        f"# {system['name']}: model card",
        "",
        "## Model",
        "",
        f"- Base model: {base.get('name', 'unknown')} ({base.get('origin', 'origin unknown')})",
        f"- Licence of the base model: {base.get('licence', 'unknown')}",
        f"- Parameters: {base.get('parameters', 'unknown')}",
        f"- Adaptation: {system['name']}",
        f"- Retrieval: {system['sections']} sections of {system['section_tokens']} tokens",
        f"- Context: {system['context']} tokens; answers of at most {system['max_new_tokens']} tokens, greedy",
        "",
        *USE,
        "## Data",
        "",
        "| table | rows | licences | digest |",
        "|---|---:|---|---|",
    ]
    for name, table in sorted(facts["tables"].items()):
        licences = ", ".join(f"{licence} ({count})" for licence, count in sorted(table.get("licences", {}).items()))
        lines.append(f"| {name} | {table['rows']} | {licences or '–'} | `{table['digest'][:12]}` |")
    lines += ["", "## Evaluation", "", f"Verdict of the gate: **{gate['verdict']}**.", ""]
    for entry in gate["entries"]:
        lines.append(f"- {entry['candidate']}: {entry['verdict']}. {' '.join(entry['reasons'])}")
    return "\n".join([*lines, *LIMITS])


def public(facts: Facts, context: int) -> str:
    """The card without architecture and training; `context` is the window that is certified, in tokens."""
    licences = sorted({one for table in facts["tables"].values() for one in table.get("licences", {})})
    lines = [
        "# Model card",
        "",
        "## Model",
        "",
        f"- Licence of the base model: {facts['base'].get('licence', 'unknown')}",
        f"- Context: {context} tokens",
        "- Architecture and training are not published.",
        "",
        *USE,
        "## Data",
        "",
        f"Licences of the documents: {', '.join(licences) or 'none'}.",
        "",
        "## Evaluation",
        "",
        f"Verdict of the gate: **{facts['gate']['verdict']}**.",
    ]
    return "\n".join([*lines, *LIMITS])


def bill(facts: Facts, versions: Mapping[str, str]) -> dict[str, Any]:
    """CycloneDX 1.7: the system, its base model, its tables, its libraries."""
    digests = facts["system"]["digests"]
    number = uuid.uuid5(uuid.NAMESPACE_URL, "nightshift:" + ",".join(f"{k}={v}" for k, v in sorted(digests.items())))
    base = facts["base"]
    model: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{digests['base'][:16]}",
        "name": str(base.get("name", "unknown")),
        "hashes": [{"alg": "SHA-256", "content": digests["base"]}],
    }
    if licence := base.get("licence"):
        model["licenses"] = [{"license": {"name": str(licence)}}]
    tables = [
        {
            "type": "data",
            "bom-ref": f"data:{name}",
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": table["digest"]}],
        }
        for name, table in sorted(facts["tables"].items())
    ]
    libraries = [
        {"type": "library", "bom-ref": f"pkg:pypi/{name}@{version}", "name": name, "version": version}
        | {"purl": f"pkg:pypi/{name}@{version}"}
        for name, version in sorted(versions.items())
    ]
    return _bom(number, facts["system"]["name"], [model, *tables, *libraries])


def public_bill(facts: Facts, digest: str) -> dict[str, Any]:
    """CycloneDX 1.7 without what tells architecture and training; `digest` is the release's."""
    number = uuid.uuid5(uuid.NAMESPACE_URL, f"nightshift:{digest}")
    model: dict[str, Any] = {"type": "machine-learning-model", "bom-ref": f"release:{digest[:16]}", "name": "model"}
    model["hashes"] = [{"alg": "SHA-256", "content": digest}]
    if licence := facts["base"].get("licence"):
        model["licenses"] = [{"license": {"name": str(licence)}}]
    return _bom(number, "nightshift", [model])


def _bom(number: uuid.UUID, name: str, components: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{number}",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "system", "name": name}},
        "components": components,
    }
