"""Harmonic mean of the precision and recall of an answer's words; case, punctuation and articles do not count."""

import datasets

import evaluate
from nightshift.score import token_f1

TEXT = datasets.Value("string")


class TokenF1(evaluate.Metric):
    """Mean over the answers, as SQuAD has it (Rajpurkar et al. 2016)."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": TEXT, "references": TEXT})
        return evaluate.MetricInfo(description=__doc__, citation="Rajpurkar et al. 2016", features=features)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        each = [token_f1(said, wanted) for said, wanted in zip(predictions, references, strict=True)]
        return {"token_f1": sum(each) / len(each)}
