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
    rows = overlap.segment_statistics(kind, HYPOTHESES, REFERENCES, "es")
    assert len(rows) == len(PAIRS)
    for part in (slice(None), slice(0, 2), slice(2, 5), slice(4, 5)):
        summed = [sum(column) for column in zip(*rows[part], strict=True)]
        expected = theirs.corpus_score(HYPOTHESES[part], [REFERENCES[part]]).score
        assert overlap.corpus_score(kind, summed) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["bleu", "chrf"])
def test_a_row_depends_on_its_own_segment_alone(kind: overlap.Kind) -> None:
    together = overlap.segment_statistics(kind, HYPOTHESES, REFERENCES, "es")
    alone = [overlap.segment_statistics(kind, [hypothesis], [reference], "es")[0] for hypothesis, reference in PAIRS]
    assert together == alone
    assert overlap.segment_statistics(kind, [], [], "es") == []


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
    assert overlap.sacrebleu_signature(kind, "es") == str(theirs.get_signature())
    overlap.segment_statistics(kind, [], [], "es")  # leaves no trace in it
    assert overlap.sacrebleu_signature(kind, "es") == str(theirs.get_signature())
    assert f"version:{sacrebleu.__version__}" in overlap.sacrebleu_signature(kind, "es")


# A hypothesis, a reference that differs in a word, and BLEU as sacreBLEU has it. In Chinese by hand:
# 9 of 11 characters agree, 7 of 10 pairs, 6 of 9 triples, 5 of 8 fours, both are as long: 100 * (9/11 * 7/10 *
# 6/9 * 5/8) ** (1/4) = 69.9. In Spanish, by words: 100 * (8/9 * 6/8 * 5/7 * 4/6) ** (1/4) = 75.1.
NEAR = {
    "zh": ("zh", "我今天去学校学习中文。", "我今天去学校学习汉语。", 69.9),
    "ja": ("char", "今日は学校へ行きました。", "今日は学校に行きました。", 73.5),
    "ko": ("char", "그는 어제 책을 읽고 잤다.", "그는 어제 책을 읽고서 잤다.", 74.3),
    "th": ("char", "วันนี้ฉันไปโรงเรียน", "วันนี้ผมไปโรงเรียน", 73.3),
    "km": ("char", "ថ្ងៃនេះខ្ញុំទៅសាលា", "ថ្ងៃនេះខ្ញុំទៅផ្សារ", 75.4),
    "lo": ("char", "ມື້ນີ້ຂ້ອຍໄປໂຮງຮຽນ", "ມື້ນີ້ຂ້ອຍໄປຕະຫຼາດ", 63.4),
    "my": ("char", "ကျွန်တော် ကျောင်းသွားတယ်", "ကျွန်မ ကျောင်းသွားတယ်", 73.8),
    "es": ("13a", "Hoy voy a la escuela con mi hermana.", "Hoy voy a la escuela con mi madre.", 75.1),
}


@pytest.mark.parametrize("language", NEAR)
def test_a_near_copy_scores_in_every_script_and_the_signature_names_the_tokenizer(language: str) -> None:
    tokenizer, hypothesis, reference, score = NEAR[language]
    theirs = BLEU(tokenize=tokenizer)
    assert theirs.corpus_score([hypothesis], [[reference]]).score == pytest.approx(score, abs=0.05)
    (row,) = overlap.segment_statistics("bleu", [hypothesis], [reference], language)
    assert overlap.corpus_score("bleu", row) == pytest.approx(score, abs=0.05)
    assert overlap.sacrebleu_signature("bleu", language) == str(theirs.get_signature())
    assert f"|tok:{tokenizer}|" in overlap.sacrebleu_signature("bleu", language)


@pytest.mark.parametrize("language", NEAR)
def test_the_score_of_a_sum_needs_no_tokenizer(language: str) -> None:
    """Two segments' statistics, added up, score as sacreBLEU scores the two with the language's tokenizer."""
    tokenizer, *texts, _ = NEAR[language]
    rows = overlap.segment_statistics("bleu", texts, texts[::-1], language)
    expected = BLEU(tokenize=tokenizer).corpus_score(texts, [texts[::-1]]).score
    assert overlap.corpus_score("bleu", [sum(column) for column in zip(*rows, strict=True)]) == pytest.approx(expected)


@pytest.mark.parametrize("language", NEAR)
def test_chrf_counts_the_same_in_every_language(language: str) -> None:
    _, *texts, _ = NEAR[language]
    assert overlap.segment_statistics("chrf", texts, texts, language) == overlap.segment_statistics(
        "chrf", texts, texts, "en"
    )
    assert overlap.sacrebleu_signature("chrf", language) == overlap.sacrebleu_signature("chrf", "en")
