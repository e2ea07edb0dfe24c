"""All figures: suite, kind, which direction is better, and meaning."""

from collections.abc import Mapping
from typing import Literal, NamedTuple


class Figure(NamedTuple):
    """`kind` is one of significance.KINDS; `better` is empty where neither direction is."""

    kind: Literal["share", "mean", "whole", "ratio", "perplexity", "bleu", "chrf"]
    better: Literal["higher", "lower", ""]
    meaning: str


FIGURES: Mapping[str, Mapping[str, Figure]] = {
    "language": {
        "right_language": Figure("ratio", "higher", "share of answers of four words and more in the language"),
        "undecided": Figure("share", "lower", "share of answers under four words: too short to tell"),
        "repetition": Figure(
            "ratio", "lower", "share of an answer's word trigrams that occur earlier in it, four words and more"
        ),
        "chrf_to_expert": Figure("chrf", "higher", "corpus chrF++ of the answers to the experts'"),
        "chrf_mismatched": Figure("chrf", "", "its control: to the experts' answers to other questions"),
        "questions": Figure("share", "", "share of answers that end with a question"),
        "distinct": Figure(
            "whole", "", "distinct answers for each answer given; of all answers together, so no interval"
        ),
        "words": Figure("mean", "", "words per answer (letters, where a script has no spaces)"),
        "finished": Figure("share", "", "share of answers that ended by themselves"),
    },
    "preference": {
        "match_accuracy": Figure(
            "share",
            "higher",
            "share of held-out pairs whose chosen side gained more, against the reference model, than the"
            " chosen side of another question; ties half",
        ),
        "match_margin": Figure("mean", "higher", "how much more it gained, nats"),
        "reward_accuracy": Figure(
            "share", "", "share of held-out pairs whose chosen side gained more than the rejected"
        ),
        "reward_accuracy_mismatched": Figure(
            "share", "", "its control: the chosen side of another question, against the rejected side"
        ),
        "reward_margin": Figure("mean", "", "how much more the chosen side gained than the rejected, nats"),
        "reward_margin_mismatched": Figure("mean", "", "its control: the chosen side of another question"),
        "likelihood_match": Figure(
            "share",
            "higher",
            "share of held-out pairs whose chosen side is likelier per token than the chosen side of another question",
        ),
        "likelihood_accuracy": Figure(
            "share", "", "share of held-out pairs whose chosen side is likelier per token than the rejected"
        ),
        "likelihood_accuracy_mismatched": Figure(
            "share", "", "its control: the chosen side of another question, than the rejected side"
        ),
        "likelihood_margin": Figure(
            "mean", "", "how much likelier the chosen side is than the rejected, nats per token"
        ),
    },
    "perplexity": {
        "perplexity": Figure("perplexity", "lower", "of the experts' answers, per token"),
        "perplexity_mismatched": Figure("perplexity", "", "its control: of the experts' answers to other questions"),
    },
    "benchmark": {
        "accuracy": Figure("share", "higher", "share of questions whose right choice is the likeliest; chance is 0.25"),
        "accuracy_per_byte": Figure("share", "higher", "the same, likelihood divided by the choice's length in bytes"),
    },
    "translation": {
        "bleu_from_english": Figure("bleu", "higher", "corpus BLEU, English to the language"),
        "chrf_from_english": Figure("chrf", "higher", "corpus chrF++, English to the language"),
        "bleu_to_english": Figure("bleu", "higher", "corpus BLEU, the language to English"),
        "chrf_to_english": Figure("chrf", "higher", "corpus chrF++, the language to English"),
    },
}
