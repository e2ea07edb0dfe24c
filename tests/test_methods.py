"""Rows as each method takes them, and the log-probabilities that it asks for."""

from typing import Any

import pytest
from conftest import make_step
from datasets import Dataset

from mothertongue.errors import BadInput
from mothertongue.training.examples import IGNORED, Conversation, Examples, Sides
from mothertongue.training.methods import (
    _look_up,
    _mismatch,
    _unpair,
    _whole,
    check_both,
    list_reference_requests,
    pack,
    prepare_rows,
)

P, Q = (1, 2), (3,)  # prompts
A, B, C, D, E = (10,), (11, 12), (13,), (14,), (15,)  # answers


def side(prompt: tuple[int, ...], answer: tuple[int, ...], label: bool) -> dict[str, Any]:
    return {"prompt_ids": prompt, "completion_ids": answer, "label": label}


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], []),
        ([Sides(P, A, B), Sides(Q, C, D)], [side(P, A, True), side(P, B, False), side(Q, C, True), side(Q, D, False)]),
        # a side of several pairs is a row once
        ([Sides(P, A, B), Sides(P, A, C), Sides(P, D, B)],
         [side(P, A, True), side(P, B, False), side(P, C, False), side(P, D, True)]),
        # what is chosen in one pair and rejected in another is neither good nor bad
        ([Sides(P, A, B), Sides(P, B, C)], [side(P, A, True), side(P, C, False)]),
        # but the same answer to another prompt is another side
        ([Sides(P, A, B), Sides(Q, B, A)], [side(P, A, True), side(P, B, False), side(Q, B, True), side(Q, A, False)]),
    ],
)  # fmt: skip
def test_each_side_is_a_row_of_its_own(pairs: list[Sides], expected: list[dict[str, Any]]) -> None:
    assert _unpair(pairs) == expected


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (2, [B, A, D, C, A]),
        (3, [C, A, B, A, D]),
        (5, [A, A, B, C, D]),
        (8, [A, A, B, C, D]),
    ],
)
def test_each_row_has_the_answer_before_it_where_its_batch_has_one_prompt(
    batch: int, expected: list[tuple[int, ...]]
) -> None:
    """The last batch has what is left; a row alone in it has its own."""
    rows = [side(P, answer, True) for answer in (A, B, C, D, A)]
    found = _mismatch(rows, batch, 99)
    assert [row.pop("KL_completion_ids") for row in found] == expected
    assert found == rows


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (4, [C, C, B, B, E]),  # the fifth is a batch of its own
        (5, [C, C, B, B, C]),
        (3, [D, D, B, E, C]),
    ],
)
def test_each_row_has_an_answer_to_another_prompt_of_its_batch(batch: int, expected: list[tuple[int, ...]]) -> None:
    """Not the other side of its own pair, which is the row before or after it."""
    rows = [side(P, A, True), side(P, B, False), side(Q, D, True), side(Q, C, False), side(P, E, True)]
    assert [row["KL_completion_ids"] for row in _mismatch(rows, batch, 99)] == expected


PAIRS = [Sides(P, A, B), Sides(P, A, C)]
OTHERS = [Sides(P, A, D), Sides(Q, B, A)]


@pytest.mark.parametrize(
    ("method", "changes", "expected"),
    [
        # each once, of training first
        ("dpo", {}, [(P, A), (P, B), (P, C), (P, D), (Q, B), (Q, A)]),
        ("dpo", {"beta": 0.7, "seed": 9, "losses": {"ipo": 1.0}}, [(P, A), (P, B), (P, C), (P, D), (Q, B), (Q, A)]),
        # the answers of its batch to each prompt as well
        ("kto", {"batch": 4}, [(P, A), (P, C), (P, B), (P, D), (Q, B), (Q, D), (Q, A)]),
        *((method, {}, []) for method in ("sft", "cpt", "orpo", "simpo")),
    ],
)
def test_which_log_probabilities_are_asked_for(
    method: str, changes: dict[str, Any], expected: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    step = make_step(method, **changes)
    parts = {"sft": ([], [conversation(1, 4)]), "cpt": ([[1, 2]], [])}.get(method, (PAIRS, OTHERS))
    train, held_out = prepare_rows(step, Examples(*parts, (), {}))
    assert list_reference_requests(step, [*train, *held_out]) == expected


def test_an_answer_that_is_too_long_after_another_prompt_is_cut() -> None:
    rows = [{"prompt_ids": (1,) * size, "completion_ids": (2,) * (10 - size)} for size in (2, 7)]
    assert [row["KL_completion_ids"] for row in _mismatch(rows, 2, 10)] == [(2,) * 3, (2,) * 3]


def test_answers_that_are_good_and_bad_are_counted() -> None:
    pairs = [Sides((1,), (2,), (3,)), Sides((1,), (3,), (4,)), Sides((9,), (3,), (2,))]
    assert check_both(pairs, make_step("kto", max_left_out=0.34), "kto") == 1
    with pytest.raises(BadInput) as caught:
        check_both(pairs, make_step("kto", max_left_out=0.1), "kto")
    assert caught.value.message == (
        "data/pairs.jsonl: 1 of 5 answers are chosen in one pair and rejected in another, over adapter.kto.max_left_out"
        " 0.1; take fewer rules in pairs.rules, or raise it"
    )


def test_kto_asks_for_each_answer_and_each_mismatched_one() -> None:
    pairs = [Sides(P, A, B), Sides(Q, C, D)]
    step = make_step("kto", batch=4)
    rows, _ = prepare_rows(step, Examples(pairs, [], (), {}))
    asked = list_reference_requests(step, rows)
    assert sorted(asked) == sorted({(P, A), (P, B), (Q, C), (Q, D), (P, D), (Q, B)})


def test_a_data_set_gets_a_column_for_each_column_of_answers() -> None:
    rows = Dataset.from_list([{"prompt_ids": P, "good": A, "bad": B}, {"prompt_ids": Q, "good": A, "bad": C}])
    known = {(P, A): -1.5, (P, B): -2.5, (Q, A): -3.5, (Q, C): -4.5, (Q, D): -9.0}
    found = _look_up(known, rows, {"good": "ref_good", "bad": "ref_bad"})
    assert (found["ref_good"][:], found["ref_bad"][:]) == ([-1.5, -3.5], [-2.5, -4.5])
    assert found["prompt_ids"][:] == [[1, 2], [3]]


def test_both_sides_with_their_prompt() -> None:
    assert _whole([Sides(P, A, B)]) == [
        {
            "prompt_input_ids": (1, 2), "prompt_attention_mask": [1, 1],
            "chosen_input_ids": [1, 2, 10], "chosen_attention_mask": [1, 1, 1], "chosen_labels": [IGNORED, IGNORED, 10],
            "rejected_input_ids": [1, 2, 11, 12], "rejected_attention_mask": [1, 1, 1, 1],
            "rejected_labels": [IGNORED, IGNORED, 11, 12],
        }
    ]  # fmt: skip


def conversation(token: int, size: int) -> Conversation:
    return Conversation([token] * size, [IGNORED] * (size - 1) + [token])


def test_whole_conversations_are_packed_into_rows() -> None:
    found = pack([conversation(token, size) for token, size in ((1, 5), (2, 3), (3, 3), (4, 2), (5, 1))], 6)
    assert [len(row["input_ids"]) for row in found] == [6, 6, 2]
    assert sorted(token for row in found for token in row["input_ids"]) == [1] * 5 + [2] * 3 + [3] * 3 + [4] * 2 + [5]
    for row in found:
        assert sum(row["seq_lengths"]) == len(row["input_ids"])
        begin = 0
        for length in row["seq_lengths"]:
            (token,) = set(row["input_ids"][begin : begin + length])
            assert row["labels"][begin : begin + length] == conversation(token, length).labels
            begin += length
    assert pack([], 6) == []


@pytest.mark.parametrize(
    ("method", "train", "expected"),
    [
        ("cpt", [[1, 2], [3]], 2),
        ("sft", [conversation(1, 4), conversation(2, 2), conversation(3, 5)], 2),
        ("dpo", PAIRS, 2),
        ("orpo", PAIRS, 2),
        ("simpo", PAIRS, 2),
        ("kto", PAIRS, 3),
    ],
)
def test_rows_of_an_epoch(method: str, train: list[Any], expected: int) -> None:
    rows, held_out = prepare_rows(make_step(method, max_length=6), Examples(train, [], (), {}))
    assert (len(rows), held_out) == (expected, [])
