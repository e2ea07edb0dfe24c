"""BLEU and chrF++ from summed statistics, against sacreBLEU's own interface."""

import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF

from mothertongue import overlap

PAIRS = [
    ("El gato come pescado en la cocina.", "El gato come carne en la cocina."),
    ("Mañana iremos a la playa.", "Mañana vamos a ir a la playa con mi hermana."),
    ("I do not know.", "No lo sé."),
    ("", "Sí."),
    ("¿Dónde está el baño?", "¿Dónde está el baño?"),
]
HYPOTHESES, REFERENCES = ([pair[side] for pair in PAIRS] for side in (0, 1))
BOTH = pytest.mark.parametrize(
    ("kind", "theirs"), [("bleu", BLEU()), ("chrf", CHRF(word_order=2))], ids=["bleu", "chrf"]
)


@BOTH
def test_summed_statistics_give_the_corpus_score(kind: overlap.Kind, theirs: BLEU | CHRF) -> None:
    rows = overlap.statistics(kind, HYPOTHESES, REFERENCES)
    assert len(rows) == len(PAIRS)
    for part in (slice(None), slice(0, 2), slice(2, 5), slice(4, 5)):
        summed = [sum(column) for column in zip(*rows[part], strict=True)]
        expected = theirs.corpus_score(HYPOTHESES[part], [REFERENCES[part]]).score
        assert overlap.score(kind, summed) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["bleu", "chrf"])
def test_a_row_depends_on_its_own_segment_alone(kind: overlap.Kind) -> None:
    together = overlap.statistics(kind, HYPOTHESES, REFERENCES)
    alone = [overlap.statistics(kind, [hypothesis], [reference])[0] for hypothesis, reference in PAIRS]
    assert together == alone
    assert overlap.statistics(kind, [], []) == []


@pytest.mark.parametrize(("hypothesis", "reference"), [pair for pair in PAIRS if pair[0]])
def test_sentence_chrf_is_sacrebleus(hypothesis: str, reference: str) -> None:
    expected = sacrebleu.sentence_chrf(hypothesis, [reference], word_order=2).score
    assert overlap.sentence_chrf(hypothesis, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("hypothesis", "reference", "score"), [("", "Sí.", 0.0), ("Sí.", "Sí.", 100.0), ("xyz", "Sí.", 0.0)]
)
def test_the_ends_of_the_scale(hypothesis: str, reference: str, score: float) -> None:
    assert overlap.sentence_chrf(hypothesis, reference) == pytest.approx(score)


@BOTH
def test_signatures_are_sacrebleus(kind: overlap.Kind, theirs: BLEU | CHRF) -> None:
    theirs.corpus_score(HYPOTHESES, [REFERENCES])
    assert overlap.signature(kind) == str(theirs.get_signature())
    overlap.statistics(kind, [], [])  # leaves no trace in it
    assert overlap.signature(kind) == str(theirs.get_signature())
    assert f"version:{sacrebleu.__version__}" in overlap.signature(kind)
