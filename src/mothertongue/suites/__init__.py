"""Suites of figures, one module each. A new one gets a case in `measure`, and its figures in figures.py."""

import json
from collections.abc import Sequence
from typing import Any

from mothertongue import languages, overlap, prompts, significance
from mothertongue.figures import FIGURES
from mothertongue.measurements import Estimate, SampleScore
from mothertongue.params import Suite
from mothertongue.suites import benchmark, language, perplexity, preference, translation
from mothertongue.suites.data import HeldOut
from mothertongue.suites.subject import Subject

VERSION = 5  # of the figures: raise it when one is computed differently


def measure(suite: Suite, data: HeldOut, subject: Subject, reference: Subject) -> list[SampleScore]:
    """All figures of a suite for each of its items."""
    match suite:
        case "benchmark":
            return benchmark.measure(data.questions, subject)
        case "preference":
            return preference.measure(data.pairs, data.threads, subject, reference)
        case "language":
            return language.measure(data.threads, subject)
        case "perplexity":
            return perplexity.measure(data.threads, subject)
        case "translation":
            return translation.measure(data.sentences, subject)


def summarize(suite: Suite, scores: Sequence[SampleScore], subject: Subject, codes: Sequence[str]) -> dict[str, Any]:
    """`figures` for all languages together, and `languages` for each where there are several."""

    def estimate(part: Sequence[SampleScore]) -> dict[str, Any]:
        return {name: figure.model_dump() for name, figure in estimate_figures(suite, part, subject).items()}

    by_language = {code: estimate([s for s in scores if s.language == code]) for code in codes}
    return {"figures": estimate(scores)} | ({"languages": by_language} if len(codes) > 1 else {})


def estimate_figures(suite: Suite, scores: Sequence[SampleScore], subject: Subject) -> dict[str, Estimate]:
    """Each figure of a suite with its interval; a figure without items, or with undecided ones only, is left out."""
    found = {}
    for name, figure in FIGURES[suite].items():
        rows = [score for score in scores if score.figure == name]
        if rows and (figure.kind != "ratio" or any(row.values[1] for row in rows)):
            codes = sorted({row.language for row in rows})
            found[name] = significance.estimate(figure.kind, rows, build_signature(suite, name, subject, codes))
    return found


def build_signature(suite: Suite, figure: str, subject: Subject, codes: Sequence[str]) -> str:
    """What must be equal before two values of a figure may be compared: how it was measured, not on what.

    The system prompt is part of what is measured, as the model is.
    """
    model, limits = subject.model, subject.limits
    parts: dict[str, object] = {
        "suite": f"{suite} {VERSION}",
        "split": limits.split,
        "language": " ".join(codes),
        "engine": model.identity["engine"],
        "device": model.identity["device"],
        "dtype": model.dtype,
        "chat": model.chat.digest,
    }
    if suite == "benchmark":
        parts |= benchmark.harness_versions()
    kind = FIGURES[suite][figure].kind
    if kind in ("bleu", "chrf"):
        targets = ["en"] if figure.endswith("_to_english") else codes
        metric: overlap.Kind = "bleu" if kind == "bleu" else "chrf"
        parts["sacrebleu"] = " ".join(sorted({overlap.sacrebleu_signature(metric, code) for code in targets}))
    if suite == "translation":
        parts["tokens"] = str(limits.translation_tokens)
        parts["prompt"] = " ".join(prompts.digest("translate", code) for code in codes)
    if figure.startswith(("reward", "match")):
        parts["reference"] = limits.reference_model
    if suite == "language":
        parts["tokens"] = str(limits.answer_tokens)
        parts["detector"] = languages.detector_version()
    return json.dumps(parts, sort_keys=True)
