"""A judge of each kind on one model, for benchmarks that compare kinds."""

from pathlib import Path

from mothertongue.params import AdditiveJudge, GradesJudge, Judge, PairwiseJudge, RubricJudge

# Of recipe epfl.
CRITERIA = dict.fromkeys(("correctness", "relevance", "clarity", "completeness", "conciseness", "engagement"), 1.0)


def build_judges(folder: Path) -> dict[str, Judge]:
    """By kind, with the settings of the demo recipes that have one; `pairwise` is in none of them."""
    name = folder.name
    return {
        "rubric": RubricJudge(kind="rubric", model=name, engine="vllm", min_label_mass=0.3),
        "additive": AdditiveJudge(
            kind="additive", model=name, engine="vllm", votes=3, temperature=0.7, max_tokens=24, min_label_mass=0.1
        ),
        "grades": GradesJudge(kind="grades", model=name, engine="vllm", criteria=CRITERIA, min_label_mass=0.3),
        "pairwise": PairwiseJudge(kind="pairwise", model=name, engine="vllm", min_label_mass=0.3),
    }
