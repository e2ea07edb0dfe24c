"""BLEU and chrF++ as sufficient statistics that add up over segments. The module of sacreBLEU."""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

Kind = Literal["bleu", "chrf"]

# BLEU counts words. In scripts without spaces, where sacreBLEU's usual tokenizer finds none, it counts characters; also
# in Korean, whose particles and endings are part of the word before them. sacreBLEU's tokenizers for words in these
# languages (MeCab, SentencePiece) need further packages or a download.
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


def segment_statistics(
    kind: Kind, hypotheses: Sequence[str], references: Sequence[str], language: str
) -> list[list[float]]:
    """One row of counts per segment; the score of a corpus is a function of their sum (Koehn 2004).

    `language` is that of the references; BLEU's tokenizer depends on it, chrF++ does not.
    """
    if not hypotheses:
        return []
    rows = _of(kind, language)._extract_corpus_statistics(list(hypotheses), [list(references)])
    return [[float(value) for value in row] for row in rows]


def corpus_score(kind: Kind, summed: Sequence[float]) -> float:
    """The corpus score, 0 to 100, of summed statistics, of any tokenizer."""
    return float(_metric(kind)._compute_score_from_stats([int(value) for value in summed]).score)


def sacrebleu_signature(kind: Kind, language: str) -> str:
    """sacreBLEU's own signature of metric, tokenizer and version, for one reference per segment."""
    metric = _of(kind, language)
    metric.num_refs = 1
    return str(metric.get_signature())
