"""A judge of each kind on one model, for benchmarks that compare kinds."""

from pathlib import Path

from mothertongue.params import AdditiveJudge, GradesJudge, Judge, PairwiseJudge, RubricJudge


def build_judges(folder: Path) -> dict[str, Judge]:
    """By kind, with the settings of the demo recipes, but with one vote instead of three and half of the criteria."""
    name, criteria = folder.name, dict.fromkeys(("correctness", "relevance", "clarity"), 1.0)
    return {
        "rubric": RubricJudge(kind="rubric", model=name, engine="vllm", min_label_mass=0.3),
        "additive": AdditiveJudge(
            kind="additive", model=name, engine="vllm", votes=1, temperature=0.7, max_tokens=24, min_label_mass=0.1
        ),
        "grades": GradesJudge(kind="grades", model=name, engine="vllm", criteria=criteria, min_label_mass=0.3),
        "pairwise": PairwiseJudge(kind="pairwise", model=name, engine="vllm", min_label_mass=0.3),
    }
