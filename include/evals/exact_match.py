"""1 when an answer has the reference's words in their order, else 0; case, punctuation and articles do not count."""

import datasets

import evaluate
from nightshift.score import exact_match

TEXT = datasets.Value("string")


class ExactMatch(evaluate.Metric):
    """Mean over the answers, as SQuAD has it (Rajpurkar et al. 2016)."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": TEXT, "references": TEXT})
        return evaluate.MetricInfo(description=__doc__, citation="Rajpurkar et al. 2016", features=features)

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        each = [exact_match(said, wanted) for said, wanted in zip(predictions, references, strict=True)]
        return {"exact_match": sum(each) / len(each)}
