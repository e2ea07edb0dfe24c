"""Preferences that a data set brings: each format and each bad row, and from a source to a pair and back."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import PARAMS
from project import ROOT
from ruamel.yaml import YAML

from mothertongue import conversations, pairs, params, preferences, sources, threads
from mothertongue.conversations import FindLanguage, Numbered, row_language
from mothertongue.errors import BadInput
from mothertongue.params import FileConversations, HubConversations, Pairs, Ratings, Raw, Rule, Sides, Threads
from mothertongue.records import Answer, Conversation, Pair, RowCounts, Thread
from mothertongue.rows import read_rows, write_json, write_rows
from stages import explain, filtered, raw
from stages import pairs as pairs_stage
from stages import threads as threads_stage

SPANISH: FindLanguage = partial(row_language, declared=None, wanted=["es"])
USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
)
SYSTEM = {"role": "system", "content": "s"}


def numbered(rows: list[Any]) -> Numbered:
    return [(f"f.jsonl:{number}", row) for number, row in enumerate(rows, start=1)]


def shown(row: Conversation) -> str:
    """The turns, and the rated answers with their scores: "q>a | a 1, b 0"."""
    (turn,) = row.rated
    assert turn.turn == len(row.messages) - 1
    rated = ", ".join(f"{each.text} {each.score:g}" for each in turn.answers)
    return f"{'>'.join(message.content for message in row.messages)} | {rated}"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, "q>a | a 1, b 0"),
        # explicit prompt, as TRL has it: lists of messages, with one answer each
        ({"prompt": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]}, "s>q>a | a 1, b 0"),
        ({"prompt": "q", "chosen": [GOOD], "rejected": "b"}, "q>a | a 1, b 0"),
        # implicit prompt, as trl-lib/ultrafeedback_binarized: both sides contain it
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8.5, "score_rejected": 8},
         "q>a | a 8.5, b 8"),
        ({"prompt": None, "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, "s>q>a | a 1, b 0"),
        # both, as HuggingFaceH4/ultrafeedback_binarized and argilla's have it
        ({"prompt": "q", "prompt_id": "7", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD],
          "score_chosen": 7.0, "score_rejected": 7.0}, "q>a | a 7, b 7"),
        ({"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD], "chosen-rating": 5.0}, "q>a | a 1, b 0"),
        # several turns in both sides after the prompt
        ({"prompt": "q", "chosen": [GOOD, USER, GOOD], "rejected": [GOOD, USER, BAD]}, "q>a>q>a | a 1, b 0"),
    ],
)  # fmt: skip
def test_a_preference_is_two_rated_answers(row: dict[str, Any], expected: str) -> None:
    found, counts = preferences.from_preferences("s", numbered([row]), SPANISH)
    assert [shown(each) for each in found] == [expected]
    turns = len(found[0].messages) + 1
    assert counts == RowCounts(total=turns, kept=turns, dropped={})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "b", "language": "en"}, "other_language"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "lang": "en"}, "other_language"),
        ({"prompt": "q", "chosen": " ", "rejected": "b"}, "empty"),
        ({"prompt": "q", "chosen": "a", "rejected": ""}, "empty"),
        ({"prompt": "\n", "chosen": "a", "rejected": "b"}, "empty"),
        ({"prompt": "q", "chosen": None, "rejected": "b"}, "empty"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 4, "score_rejected": None}, "unrated"),
        ({"prompt": "q", "chosen": [USER, GOOD], "rejected": None}, "empty"),
        ({"chosen": [USER, GOOD], "rejected": None}, "no_answer"),
        ({"chosen": [USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, "different_prompts"),
        ({"prompt": "p", "chosen": [USER, GOOD], "rejected": [BAD]}, "different_prompts"),
        ({"chosen": [USER, GOOD, USER], "rejected": [USER, BAD]}, "no_answer"),
        ({"chosen": [USER, GOOD], "rejected": [USER]}, "no_answer"),
        ({"prompt": [SYSTEM], "chosen": "a", "rejected": "b"}, "no_answer"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 2}, "contradictory"),
    ],
)
def test_a_row_that_is_no_preference_is_dropped_and_counted(row: dict[str, Any], reason: str) -> None:
    found, counts = preferences.from_preferences("s", numbered([row]), SPANISH)
    assert found == []
    assert (set(counts.dropped), counts.kept, counts.total) == ({reason}, 0, counts.dropped[reason])
    assert counts.total > 1


TURNS = "input should be text or a list of messages"
NO_PROMPT = "prompt: missing; add it, or let chosen and rejected be lists of messages that begin with it"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "chosen": "a"}, "rejected: missing; add it"),
        ({"prompt": "q", "rejected": "b"}, "chosen: missing; add it"),
        ({"chosen": "a", "rejected": "b"}, NO_PROMPT),
        ({"prompt": [], "chosen": [USER, GOOD], "rejected": [BAD]}, NO_PROMPT),
        ({"prompt": 7, "chosen": "a", "rejected": "b"}, f"prompt: {TURNS}, got 7; fix the row"),
        ({"prompt": "q", "chosen": {"a": 1}, "rejected": "b"}, f'chosen: {TURNS}, got {{"a": 1}}; fix the row'),
        ({"prompt": "q", "chosen": "a", "rejected": []},
         "rejected: list should have at least 1 item after validation, not 0, got []; fix the row"),
        ({"prompt": "q", "chosen": "a", "rejected": [{"role": "bot", "content": "b"}]},
         "rejected.0.role: input should be 'system', 'user' or 'assistant', got \"bot\"; fix the row"),
        ({"prompt": "q", "chosen": [{"role": "assistant"}], "rejected": "b"}, "chosen.0.content: missing; add it"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1.0},
         "score_rejected: missing beside the score of the other side; add it, or remove both"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "score_rejected": 1.0},
         "score_chosen: missing beside the score of the other side; add it, or remove both"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": "9", "score_rejected": 1.0},
         'score_chosen: input should be a valid number, got "9"; fix the row'),
    ],
)  # fmt: skip
def test_a_bad_preference_is_named(row: dict[str, Any], expected: str) -> None:
    good = {"prompt": "q", "chosen": "a", "rejected": "b"}
    with pytest.raises(BadInput) as caught:
        preferences.from_preferences("s", numbered([good, row]), SPANISH)
    assert caught.value.message == f"f.jsonl:2: {expected}"


def test_rows_that_prefer_one_answer_to_different_ones_have_ids_of_their_own() -> None:
    rows = [{"prompt": "q", "chosen": "a", "rejected": other} for other in "bcb"]
    found, _ = preferences.from_preferences("s", numbered(rows), SPANISH)
    assert [shown(row) for row in found] == ["q>a | a 1, b 0", "q>a | a 1, c 0", "q>a | a 1, b 0"]
    assert found[0] == found[2]
    assert found[0].id != found[1].id


RATINGS = Ratings(prompt="prompt", answer="response", scores={"helpfulness": 1.0, "correctness": 0.5})


def rating(prompt: Any, response: Any, helpfulness: Any = 4, correctness: Any = 4, **more: Any) -> dict[str, Any]:
    """A row as HelpSteer has it."""
    row = {"prompt": prompt, "response": response, "helpfulness": helpfulness, "correctness": correctness}
    return row | {"verbosity": 2} | more


@pytest.mark.parametrize(
    ("rows", "expected", "tally"),
    [
        # (4 + 0.5 * 1) / 1.5 and (1 + 0.5 * 4) / 1.5
        ([rating("q", "a", 4, 1), rating("q", "b", 1, 4)], ["q>a | a 3, b 2"], (3, 3, {})),
        ([rating("q", "b", 1, 1), rating("p", "c"), rating("q", "a", 2, 2)],
         ["q>a | b 1, a 2", "p>c | c 4"], (5, 5, {})),
        # of equally good ones the first, whatever their last bits
        ([rating("q", "a", 1, 2), rating("q", "b", 2, 0)], ["q>a | a 1.33333, b 1.33333"], (3, 3, {})),
        ([rating("q ", "\na", 1.5, 1.5), rating("q", "a", 1, 1)], ["q>a | a 1.25"], (3, 2, {"merged": 1})),
        # several turns in one text, as HelpSteer2 has them
        ([rating("q\n<extra_id_1>Assistant\nr\n\n<extra_id_1>User\nt", "a")], ["q>r>t>a | a 4"], (4, 4, {})),
        ([rating("q\n<extra_id_1>Assistant\nr", "a")], [], (3, 0, {"no_answer": 3})),
        ([rating("q\n<extra_id_1>Assistant\n\n<extra_id_1>User\nt", "a")], [], (4, 0, {"empty": 4})),
        # dropped
        ([rating("q", "a"), rating("q", "b", None), rating("p", "c", 1, None)],
         ["q>a | a 4"], (5, 2, {"unrated": 3})),
        ([rating("q", " "), rating("", "c"), rating("q", None)], [], (5, 0, {"empty": 5})),
        ([rating("q", "a", language="en"), rating("q", "b", language="es")],
         ["q>b | b 4"], (4, 2, {"other_language": 2})),
    ],
)  # fmt: skip
def test_ratings(rows: list[dict[str, Any]], expected: list[str], tally: tuple[int, int, dict[str, int]]) -> None:
    found, counts = preferences.from_ratings("s", numbered(rows), SPANISH, RATINGS)
    assert [shown(row) for row in found] == expected
    assert (counts.total, counts.kept, counts.dropped) == tally


def test_equal_scores_are_equal_to_their_last_bits() -> None:
    """0.1 + 0.2 is not 0.3 in binary."""
    weights = Ratings(
        prompt="prompt", answer="response", scores={"helpfulness": 0.1, "correctness": 0.2, "verbosity": 0.3}
    )
    rows = [rating("q", "a", 0, 0, verbosity=1), rating("q", "b", 1, 1, verbosity=0)]
    (found,), _ = preferences.from_ratings("s", numbered(rows), SPANISH, weights)
    one, other = found.rated[0].answers
    assert one.score == other.score == pytest.approx(0.5)
    assert found.messages[-1].content == "a"


def test_a_column_in_which_lower_is_better_has_a_negative_weight() -> None:
    weights = Ratings(prompt="prompt", answer="response", scores={"helpfulness": 0.6, "verbosity": -0.4})
    rows = [rating("q", "a", 3, verbosity=1), rating("q", "b", 3, verbosity=4)]
    found, _ = preferences.from_ratings("s", numbered(rows), SPANISH, weights)
    assert [shown(row) for row in found] == ["q>a | a 1.4, b 0.2"]  # 1.8 - 0.4 and 1.8 - 1.6


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "q", "helpfulness": 1, "correctness": 1},
         "response: missing; add it, or correct `ratings` of the source"),
        ({"prompt": "q", "response": "a", "helpfulness": 1},
         "correctness: missing; add it, or correct `ratings` of the source"),
        (rating(["q"], "a"), "prompt: input should be text, got ['q']; take another column"),
        (rating("q", 7), "response: input should be text, got 7; take another column"),
        (rating("q", "a", "4"), "helpfulness: input should be a number, got 4; take another column"),
        (rating("q", "a", True), "helpfulness: input should be a number, got True; take another column"),
        (rating("q", "a", 1, float("nan")), "correctness: input should be a number, got nan; take another column"),
        (rating("q", "a", 10**400), f"helpfulness: input should be a number, got 1{'0' * 59}; take another column"),
    ],
)  # fmt: skip
def test_a_bad_rating_is_named(row: dict[str, Any], expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        preferences.from_ratings("s", numbered([rating("q", "a"), row]), SPANISH, RATINGS)
    assert caught.value.message == f"f.jsonl:2: {expected}"


def message(identity: str, parent: str | None, rank: float | None = None, **other: Any) -> dict[str, Any]:
    """A message of OpenAssistant's; those named in lower case are the assistant's."""
    role = "assistant" if identity.islower() else "prompter"
    return {"message_id": identity, "parent_id": parent, "role": role, "text": identity, "rank": rank, **other}


def nested(rows: list[dict[str, Any]], parent: str | None = None) -> list[dict[str, Any]]:
    below = [row for row in rows if row["parent_id"] == parent]
    return [{**row, "replies": nested(rows, row["message_id"])} for row in below]


A = message("A", None)


@pytest.mark.parametrize(
    ("rows", "expected", "dropped"),
    [
        ([A, message("b", "A", 1), message("c", "A", 0), message("d", "A", 2)], ["A>c | 1: c 0 b -1 d -2"], {}),
        # one that has a rank is not ranked against anything
        ([A, message("b", "A", 0), message("c", "A")], ["A>b |"], {"outranked": 1}),
        ([A, message("b", "A"), message("c", "A")], ["A>b |"], {"unranked": 1}),
        ([A, message("b", "A", 1), message("c", "A", 0), message("d", "A")], ["A>c | 1: c 0 b -1"], {"outranked": 1}),
        ([A, message("b", "A", 1), message("c", "A", 0, deleted=True), message("d", "A", 2)],
         ["A>b | 1: b -1 d -2"], {"deleted": 1}),
        # what replies to the others is dropped
        ([A, message("b", "A", 1), message("c", "A", 0), message("D", "b"), message("e", "D")],
         ["A>c | 1: c 0 b -1"], {"outranked": 2}),
        # at each turn, and on each branch
        ([A, message("b", "A", 1), message("c", "A", 0), message("D", "c"), message("E", "c"), message("f", "D", 1),
          message("g", "D", 0)], ["A>c>D>g | 1: c 0 b -1 3: g 0 f -1", "A>c>E | 1: c 0 b -1"], {}),
        # a user's second message is not what they are ranked as answers for
        ([A, message("B", "A"), message("c", "A", 1), message("d", "A", 0)], ["A>B |", "A>d | 1: d 0 c -1"], {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["messages", "trees"])
def test_ranked_replies(form: str, rows: list[dict[str, Any]], expected: list[str], dropped: dict[str, int]) -> None:
    if form == "trees":
        given = numbered([{"prompt": root} for root in nested(rows)])
        found, counts = conversations.from_oasst_trees("s", given, SPANISH, "ranked")
    else:
        found, counts = conversations.from_oasst_messages("s", numbered(rows[::-1]), SPANISH, "ranked")
    shown = [
        " ".join([">".join(m.content for m in row.messages), "|"]
                 + [f"{turn.turn}: " + " ".join(f"{a.text} {a.score:g}" for a in turn.answers) for turn in row.rated])
        for row in found
    ]  # fmt: skip
    assert sorted(shown) == expected
    assert counts == RowCounts(total=len(rows), kept=len(rows) - sum(dropped.values()), dropped=dropped)
    with_best, _ = conversations.from_oasst_messages("s", numbered(rows), SPANISH, "best")
    assert sorted(row.messages[-1].content for row in found) == sorted(row.messages[-1].content for row in with_best)


def test_a_preference_data_set_in_the_hubs_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    rows = [
        {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 9.0, "score_rejected": 2.5}
    ]
    (tmp_path / "prefs").mkdir()
    (tmp_path / "prefs/train_prefs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "prefs/README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train_prefs, path: train_prefs.jsonl}\n---\n"
    )
    source = HubConversations(
        source="hub", id=str(tmp_path / "prefs"), revision="a" * 40, format="preferences", split="train_prefs"
    )
    found, _ = sources.read_sources(Raw(sources=[source]), ["es"], tmp_path)
    assert [shown(row) for row in found] == ["q>a | a 9, b 2.5"]


def test_the_guides_sources_and_rule_load(tmp_path: Path) -> None:
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    (block,) = [part for part in guide.split("```yaml\n") if part.startswith("raw:\n  sources:\n    - {source: hub")]
    yaml = YAML()
    values: dict[str, Any] = yaml.load(ROOT / "params.yaml")
    for section, new in yaml.load(block.partition("```")[0].replace("<commit>", "a" * 40)).items():
        values[section] |= new
    yaml.dump(values, tmp_path / "params.yaml")
    loaded = params.load(tmp_path / "params.yaml")
    formats = [source.format for source in loaded.raw.sources]
    assert formats == ["preferences", "preferences", "ratings", "oasst_messages"]


# From a source to pairs, and back.

QUESTIONS = {
    "¿Dónde queda la biblioteca?": ("Está en la plaza mayor, junto al museo.", "Creo que está por ahí, no sé."),
    "¿Qué bebes por la mañana?": ("Bebo café con leche, casi siempre.", "Bebo lo que hay en casa."),
    "¿Qué hora es en Madrid?": ("Son las tres de la tarde.", "No tengo reloj en casa."),
    "¿Dónde está la farmacia?": ("La farmacia está en la esquina.", "No la he visto hoy por aquí."),
}  # train, train, test, validation
FORMATS: dict[str, tuple[str, list[list[dict[str, Any]]], tuple[float, float], tuple[int, int]]] = {
    # how the source is written, its lines by question, scores of both answers, lines of both after the question's first
    "preferences": (
        "format: preferences",
        [[{"prompt": asked, "chosen": good, "rejected": bad}] for asked, (good, bad) in QUESTIONS.items()],
        (1, 0),
        (0, 0),
    ),
    "ratings": (
        "format: ratings, ratings: {prompt: prompt, answer: response, scores: {helpfulness: 1.0, correctness: 0.5}}",
        [[rating(asked, bad, 2, 1), rating(asked, good)] for asked, (good, bad) in QUESTIONS.items()],
        (4, 5 / 3),
        (1, 0),
    ),
    "ranks": (
        "format: oasst_messages, replies: ranked",
        [
            [
                message("Q", None) | {"message_id": asked, "text": asked},
                message("a", asked, 0) | {"message_id": good, "text": good},
                message("a", asked, 1) | {"message_id": bad, "text": bad},
            ]
            for asked, (good, bad) in QUESTIONS.items()
        ],
        (0, -1),
        (1, 2),
    ),
}
RULES = """\
  rules:
    - {name: as_people, chosen: best, rejected: worst, judge: people, min_margin: 0.5}
    - {name: by_chrf, chosen: reference, rejected: worst, judge: chrf, min_margin: 0}
"""
RULE = "  rules: [{name: reference_over_plain, chosen: reference, rejected: plain, judge: second, min_margin: 1}]\n"


@pytest.mark.usefixtures("workplace")
@pytest.mark.parametrize("form", FORMATS)
def test_from_a_source_to_pairs_and_back(form: str) -> None:
    written, lines, scores, offsets = FORMATS[form]
    assert RULE in PARAMS
    changed = PARAMS.replace("format: messages", written).replace(RULE, RULES)
    Path("params.yaml").write_text(changed, encoding="utf-8")
    Path("data/sources").mkdir(parents=True)
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for part in lines for line in part)
    Path("data/sources/dialogues.jsonl").write_text(text, encoding="utf-8")
    for stage, arguments in (
        (raw.main, ["data/sources", "data/raw.jsonl", "data/texts.jsonl", "metrics/raw.json"]),
        (filtered.main, ["data/raw.jsonl", "data/filtered.jsonl", "metrics/filtered.json"]),
        (threads_stage.main, ["data/filtered.jsonl", "data/threads.jsonl", "metrics/threads.json"]),
    ):
        result = CliRunner().invoke(stage, arguments)
        assert result.exit_code == 0, result.output
    read = json.loads(Path("metrics/raw.json").read_text())["dialogues.jsonl"]
    assert (read["total"], read["kept"]) == (12, 12)  # four questions, eight answers
    rows = read_rows(Path("data/threads.jsonl"), Thread)
    assert {row.reference for row in rows} == {good for good, _ in QUESTIONS.values()}

    plain = [
        Answer(id=f"p-{row.id}", thread=row.id, generator="plain", index=0, text="No lo sé.", tokens=4, finish="stop")
        for row in rows
    ]
    write_rows(Path("data/generated/plain.jsonl"), plain)
    write_rows(Path("data/generated/other.jsonl"), [])
    for name in ("rubric", "second"):
        write_rows(Path(f"data/scored/{name}.jsonl"), [])
        write_json(Path(f"metrics/calibrated/{name}.json"), {"cards": {}, "usage": None})
    made = CliRunner().invoke(
        pairs_stage.main,
        ["data", "metrics/calibrated", "data/pairs.jsonl", "metrics/pairs.json", "metrics/curves/pairs"],
    )  # fmt: skip
    assert made.output == "as_people, by people: 4 of 4\nby_chrf, by chrf: 4 of 4\ndata/pairs.jsonl: 8 pairs\n"
    found = read_rows(Path("data/pairs.jsonl"), Pair)
    people = {pair.prompt[-1].content: pair for pair in found if pair.judge == "people"}
    assert {asked: tuple(text for text, _ in pair.sides) for asked, pair in people.items()} == QUESTIONS
    for pair in people.values():
        assert (pair.chosen_from.score, pair.rejected_from.score) == pytest.approx(scores)
        assert {pair.chosen_from.generator, pair.rejected_from.generator} == {"people"}
    for pair in found:
        if pair.judge == "chrf":
            assert (pair.chosen_from.generator, pair.rejected_from.generator) == ("reference", "plain")
            assert pair.chosen_from.score == pytest.approx(100)

    for column in ("base", "prompted", "dpo", "nf4", "int8"):
        for suite in ("benchmark", "preference", "language", "perplexity", "translation"):
            write_rows(Path(f"metrics/measured/{column}/{suite}.items.jsonl"), [])
    per_question = len(lines[0])
    for place, (asked, (_, bad)) in enumerate(QUESTIONS.items()):
        pair = people[asked]
        printed = CliRunner().invoke(explain.main, [pair.id])
        assert printed.exit_code == 0, printed.output
        output = printed.output.splitlines()
        assert f"  rejected: answer {pair.rejected_from.answer} of a source, score {scores[1]:g}: «{bad}»" in output
        for lineage, score, offset in zip((pair.chosen_from, pair.rejected_from), scores, offsets, strict=True):
            start = output.index(
                f"answer {lineage.answer}: a source's to thread {pair.thread}, rated {score:g} by people"
            )
            assert output[start + 1] == f"  source: data/sources/dialogues.jsonl:{place * per_question + offset + 1}"
        alone = CliRunner().invoke(explain.main, [pair.rejected_from.answer]).output
        assert f"  rejected in pair {pair.id} by rule as_people, split {pair.split}\n" in alone
        assert (
            f"  rated by people: {pair.rejected_from.answer}: "
            in CliRunner().invoke(explain.main, [pair.thread]).output
        )
    whole = CliRunner().invoke(explain.main, [pair.thread]).output.splitlines()
    expected = {"preferences": "4", "ratings": "7, 8", "ranks": "11 (its last message)"}[form]
    assert whole[-2] == f"  source: data/sources/dialogues.jsonl:{expected}"


SHARED = ROOT.parent / "shared/data/oasst1_en_validation.messages.jsonl"


@pytest.mark.skipif(not SHARED.is_file(), reason="no ../shared/data with OpenAssistant's conversations")
def test_openassistants_ranks_as_pairs() -> None:
    """Counted in the file by itself, along the best-ranked replies: 262 messages have several, 724 in all."""
    source = FileConversations(source="file", id=SHARED.name, format="oasst_messages", replies="ranked")
    found, counts = sources.read_sources(Raw(sources=[source]), ["en"], SHARED.parent)
    assert counts[SHARED.name].dropped == {"outranked": 1346 - (724 - 262), "deleted": 25, "badly_reviewed": 23}
    rows, _ = threads.extract_threads(found, Threads(validation=0.1, test=0.2))
    rated = [row for row in rows if row.rated]
    rule = Rule(name="r", chosen="best", rejected="worst", judge="people", min_margin=0)
    made, tally = pairs.make_pairs(rows, [], [], Pairs(rules=[rule], max_cut_rejected=0))
    dropped = {reason: count for reason, count in tally["r"].dropped.items() if count}
    assert (len(rated), sum(len(row.rated) for row in rated)) == (262, 724)
    # Of two, read in the file: the best and the worst of three are the same text; the better two of three are German.
    assert (len(made), dropped) == (260, {"no_answer": len(rows) - 262, "alone": 1, "identical": 1})
    # read in the file: three replies to its first message, with the ranks 0, 1 and 2
    first = next(pair for pair in made if pair.prompt[0].content == "What do you think about ChatGPT?")
    assert first.chosen[0].content.startswith(
        "As an open source alternative to ChatGPT, I do not have personal opinions."
    )
    assert first.rejected[0].content.startswith("ChatGPT was the inspiration for my creation, but ChatGPT is shackled")
    assert (first.chosen_from.score, first.rejected_from.score) == (0, -2)


def test_rows_that_contradict_each_other_are_not_learned(workplace: Path) -> None:
    """Of three rows about one question two prefer opposite answers; a held-out row may contradict."""
    rows: list[dict[str, str]] = [
        {"prompt": question, "chosen": chosen, "rejected": rejected}
        for question in ("¿Dónde está el gato?", "¿Qué come el perro?", "¿Cuándo llega el tren?", "¿Quién canta ahora?")
        for chosen, rejected in (
            ("Está en la cocina, con la abuela.", "Creo que no lo sé todavía."),
            ("Creo que no lo sé todavía.", "Está en la cocina, con la abuela."),
            ("Está en la cocina, con la abuela.", "Pregunta mañana, por favor."),
        )
    ]
    path = workplace / "data/sources/mine.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = FileConversations(source="file", id="mine.jsonl", format="preferences")
    found, _ = sources.read_sources(Raw(sources=[source]), ["es"], path.parent)
    cut, _ = threads.extract_threads(found, Threads(validation=0.0, test=0.01))
    rule = Rule(name="r", chosen="best", rejected="worst", judge="people", min_margin=0)
    made, tally = pairs.make_pairs(cut, [], [], Pairs(rules=[rule], max_cut_rejected=0))
    assert {row.split for row in cut} == {"train"}
    assert tally["r"].dropped["contradictory"] == 8
    assert {pair.sides[1][0] for pair in made} == {"Pregunta mañana, por favor."}
    assert len(made) == 4


def test_sides_under_other_names() -> None:
    sides = Sides(prompt="q", chosen="good", rejected="bad", score_chosen="up", score_rejected="down")
    row = {"q": "¿Dónde?", "good": "Aquí.", "bad": "No.", "up": 4, "down": 1, "prompt": "not this", "lang": "es"}
    (found,), _ = preferences.from_preferences("s", preferences.rename_sides([("1", row)], sides), SPANISH)
    assert [turn.content for turn in found.messages] == ["¿Dónde?", "Aquí."]
    assert [(each.text, each.score) for each in found.rated[0].answers] == [("Aquí.", 4), ("No.", 1)]
    for broken in (["x"], {key: value for key, value in row.items() if key != "bad"}):
        with pytest.raises(BadInput, match=r"^2: (bad|q): missing; add it, or correct `sides` of the source$"):
            list(preferences.rename_sides([("2", broken)], sides))
