"""BLEU and chrF++ as sufficient statistics that add up over segments. The room of sacreBLEU."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

Kind = Literal["bleu", "chrf"]


@cache
def _metric(kind: Kind) -> Any:
    from sacrebleu.metrics import BLEU, CHRF

    return BLEU() if kind == "bleu" else CHRF(word_order=2)


def sentence_chrf(hypothesis: str, reference: str) -> float:
    """chrF++ of one text, 0 to 100."""
    return float(_metric("chrf").sentence_score(hypothesis, [reference]).score)


def statistics(kind: Kind, hypotheses: Sequence[str], references: Sequence[str]) -> list[list[float]]:
    """One row of counts per segment; the score of a corpus is a function of their sum (Koehn 2004)."""
    if not hypotheses:
        return []
    rows = _metric(kind)._extract_corpus_statistics(list(hypotheses), [list(references)])
    return [[float(value) for value in row] for row in rows]


def score(kind: Kind, summed: Sequence[float]) -> float:
    """The corpus score, 0 to 100, of summed statistics."""
    return float(_metric(kind)._compute_score_from_stats([int(value) for value in summed]).score)


def signature(kind: Kind) -> str:
    """sacreBLEU's own signature of metric, tokenizer and version, for one reference per segment."""
    metric = _metric(kind)
    metric.num_refs = 1
    return str(metric.get_signature())
