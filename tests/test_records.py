"""Row types of data/ and metrics/: ids, counts, and what one row gives for another."""

import pytest

from mothertongue.measurements import Estimate
from mothertongue.records import (
    Answer,
    Conversation,
    Lineage,
    Message,
    Pair,
    Rated,
    RatedTurn,
    RowCounts,
    Thread,
    rated_answers,
    reference_answer,
    row_id,
    unit_hash,
)


def test_ids_depend_on_content_alone() -> None:
    # printf '["ñ", 1]' | sha256sum
    assert row_id("ñ", 1) == "ec21b7b8a3d4b601"
    assert row_id("a", "b") != row_id("ab")


def test_a_number_from_0_to_1_depends_on_the_text_alone() -> None:
    # printf ñ | sha256sum
    assert unit_hash("ñ") == 0x024BB90888CA89A1 / 2**64
    assert 0.45 < sum(unit_hash(str(number)) for number in range(2000)) / 2000 < 0.55


@pytest.mark.parametrize(
    ("dropped", "text"),
    [({}, "3 of 3"), ({"short": 0}, "3 of 3"), ({"short": 2, "long": 1}, "3 of 6 (dropped: long 1, short 2)")],
)
def test_row_counts_as_text(dropped: dict[str, int], text: str) -> None:
    assert str(RowCounts(total=3 + sum(dropped.values()), kept=3, dropped=dropped)) == text


def test_an_estimate_has_its_interval() -> None:
    with pytest.raises(ValueError, match="low"):
        Estimate.model_validate({"value": 0.5, "high": 0.6, "n": 10, "kind": "share", "signature": "s"})


def test_the_experts_answer_is_an_answer_of_a_generator_named_reference() -> None:
    prompt = [Message(role="user", content="¿Qué hora es?")]
    thread = Thread(
        id="t", conversation="c", language="es", group="g", split="test", prompt=prompt, reference="Las dos."
    )
    assert reference_answer(thread) == Answer(
        id=row_id("t", "reference", 0, "Las dos."),
        thread="t",
        generator="reference",
        index=0,
        text="Las dos.",
        tokens=0,
        finish="stop",
    )


ASKED = [Message(role="user", content="¿Qué hora es?")]
RATED = [Rated(text="Las dos.", score=4.5), Rated(text="No sé.", score=-1.0)]


def test_rated_answers_are_answers_of_a_generator_named_people() -> None:
    thread = Thread(
        id="t",
        conversation="c",
        language="es",
        group="g",
        split="test",
        prompt=ASKED,
        reference="Las dos.",
        rated=RATED,
    )
    assert [(row.id, row.generator, row.index, row.text, row.finish) for row in rated_answers(thread)] == [
        (row_id("t", "people", 0, "Las dos."), "people", 0, "Las dos.", "stop"),
        (row_id("t", "people", 1, "No sé."), "people", 1, "No sé.", "stop"),
    ]
    assert rated_answers(thread.model_copy(update={"rated": []})) == []


def test_rows_without_rated_answers_are_written_as_before_there_were_any() -> None:
    conversation = Conversation(id="c", source="s", language="es", messages=ASKED)
    thread = Thread(id="t", conversation="c", language="es", group="g", split="test", prompt=ASKED, reference=None)
    message = '{"role":"user","content":"¿Qué hora es?"}'
    assert conversation.model_dump_json() == (
        f'{{"id":"c","source":"s","language":"es","messages":[{message}],"unanswered":false}}'
    )
    assert thread.model_dump_json() == (
        f'{{"id":"t","conversation":"c","language":"es","group":"g","split":"test","prompt":[{message}],'
        '"reference":null}'
    )
    rated: list[Conversation | Thread] = [
        conversation.model_copy(update={"rated": [RatedTurn(turn=1, answers=RATED)]}),
        thread.model_copy(update={"rated": RATED}),
    ]
    for row in rated:
        assert type(row).model_validate_json(row.model_dump_json()) == row


def test_the_sides_of_a_pair_are_texts_with_their_lineage() -> None:
    chosen, rejected = (
        Lineage(answer=answer, generator=answer, finish=finish, score=score)
        for answer, finish, score in (("expert", "stop", 5.0), ("plain", "length", 1.5))
    )
    pair = Pair(
        id="a",
        thread="t",
        language="es",
        split="train",
        rule="r",
        judge="j",
        prompt=[Message(role="user", content="¿Qué hora es?")],
        chosen=[Message(role="assistant", content="Las dos.")],
        rejected=[Message(role="assistant", content="No sé")],
        chosen_from=chosen,
        rejected_from=rejected,
    )
    assert pair.sides == (("Las dos.", chosen), ("No sé", rejected))
