"""Every figure there is: its suite, its kind and what it says."""

from collections.abc import Mapping

# suite: figure: (kind of significance.KINDS, what it says)
FIGURES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "preference": {
        "reward_accuracy": (
            "share",
            "share of held-out pairs whose chosen side gained more against the base; ties half",
        ),
        "reward_margin": ("mean", "how much more it gained, nats"),
        "likelihood_accuracy": ("share", "share of held-out pairs whose chosen side is likelier per token"),
        "likelihood_margin": ("mean", "how much likelier, nats per token"),
    },
    "language": {
        "right_language": ("share", "share of answers in the language"),
        "repetition": ("mean", "share of an answer's word trigrams that stood in it before"),
        "words": ("mean", "words per answer"),
        "finished": ("share", "share of answers that ended by themselves"),
    },
    "perplexity": {"perplexity": ("perplexity", "of the experts' answers, per token")},
    "benchmark": {
        "accuracy": ("share", "share of questions whose right choice is the likeliest"),
        "accuracy_per_byte": ("share", "the same, likelihood divided by the choice's length in bytes"),
    },
    "translation": {
        "bleu_from_english": ("bleu", "corpus BLEU, English to the language"),
        "chrf_from_english": ("chrf", "corpus chrF++, English to the language"),
        "bleu_to_english": ("bleu", "corpus BLEU, the language to English"),
        "chrf_to_english": ("chrf", "corpus chrF++, the language to English"),
    },
}
