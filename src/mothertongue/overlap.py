"""BLEU and chrF++ as sufficient statistics that add up over segments. The room of sacreBLEU."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

Kind = Literal["bleu", "chrf"]

# BLEU counts words. Where sacreBLEU's usual tokenizer finds none, for want of spaces, it counts characters; in Korean,
# too, whose particles and endings stand in one word with what they belong to. Those of sacreBLEU that know words
# (MeCab, SentencePiece) need further packages or a download.
TOKENIZERS = {"zh": "zh", **dict.fromkeys(("ja", "ko", "km", "lo", "my", "th"), "char")}


@cache
def _metric(kind: Kind, tokenizer: str = "13a") -> Any:
    from sacrebleu.metrics import BLEU, CHRF

    return BLEU(tokenize=tokenizer) if kind == "bleu" else CHRF(word_order=2)


def _of(kind: Kind, language: str) -> Any:
    return _metric(kind, TOKENIZERS.get(language, "13a")) if kind == "bleu" else _metric(kind)


def sentence_chrf(hypothesis: str, reference: str) -> float:
    """chrF++ of one text, 0 to 100."""
    return float(_metric("chrf").sentence_score(hypothesis, [reference]).score)


def statistics(kind: Kind, hypotheses: Sequence[str], references: Sequence[str], language: str) -> list[list[float]]:
    """One row of counts per segment; the score of a corpus is a function of their sum (Koehn 2004).

    `language` is that of the references; BLEU's tokenizer depends on it, what chrF++ counts does not.
    """
    if not hypotheses:
        return []
    rows = _of(kind, language)._extract_corpus_statistics(list(hypotheses), [list(references)])
    return [[float(value) for value in row] for row in rows]


def score(kind: Kind, summed: Sequence[float]) -> float:
    """The corpus score, 0 to 100, of summed statistics, whatever tokenizer they are of."""
    return float(_metric(kind)._compute_score_from_stats([int(value) for value in summed]).score)


def signature(kind: Kind, language: str) -> str:
    """sacreBLEU's own signature of metric, tokenizer and version, for one reference per segment."""
    metric = _of(kind, language)
    metric.num_refs = 1
    return str(metric.get_signature())
