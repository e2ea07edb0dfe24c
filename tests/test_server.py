"""Models behind a server: what is sent, what is kept, what is asked again, and what it cost."""

import json
import math
import random
import re
import sqlite3
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import toy
from click.testing import CliRunner
from conftest import PARAMS
from fake_server import FakeServer, Reply, say

import stages.generated
import stages.models
from benchmarks.server import find_port, serve
from mothertongue import answers, judging, models, sampling
from mothertongue.errors import BadInput
from mothertongue.judging import additive, grades
from mothertongue.params import AdditiveJudge, Generator, GradesJudge, Judge, PairwiseJudge, RubricJudge, ServerModel
from mothertongue.records import Answer, Message, RowCounts, Thread
from mothertongue.rows import read_rows, write_rows
from mothertongue.sampling import server
from mothertongue.store import Store

GENERATOR = Generator(
    model="api", engine="server", system_prompt=False, train_share=1.0, n=1, temperature=0.5, top_p=0.9, max_tokens=30
)
RUBRIC = RubricJudge(kind="rubric", model="api", engine="server", min_label_mass=0.5)


def open_server(folder: Path, url: str, **more: Any) -> server.Server:
    """The model of an entry of params.yaml, with a sample store that is in the folder."""
    entry = {"source": "server", "url": url, "id": "chat", "revision": "2026-11-01", **more}
    models.fetch(ServerModel.model_validate(entry), folder / "api")
    found = sampling.open_model(folder / "api", "server", Store(folder))
    assert isinstance(found, server.Server)
    return found


def thread(number: int) -> Thread:
    turn = Message(role="user", content=f"question {number}")
    return Thread(
        id=f"t{number:03}",
        conversation="c",
        language="en",
        group=f"g{number}",
        split="test",
        prompt=[turn],
        reference="yes",
    )


def answer(number: int, text: str = "An answer.") -> Answer:
    return Answer(id=f"a{number}", thread=f"t{number:03}", generator="own", index=0, text=text, tokens=3, finish="stop")


def echo(body: dict[str, Any], _: int) -> Reply:
    return say(
        f" to {body['messages'][-1]['content']} ", "length" if "1" in body["messages"][-1]["content"] else "stop"
    )


def ask(model: server.Server, count: int, seed: int = 1) -> list[Answer]:
    return answers.generate_answers([thread(n) for n in range(count)], "own", GENERATOR, seed, model)[0]


def test_messages_and_sampling_parameters_are_sent_and_answers_are_joined_to_their_threads(tmp_path: Path) -> None:
    with FakeServer(echo) as fake:
        rows = ask(open_server(tmp_path, fake.url), 3)
    assert [(row.thread, row.text, row.finish, row.tokens) for row in rows] == [
        ("t000", "to question 0", "stop", 3),
        ("t001", "to question 1", "length", 3),
        ("t002", "to question 2", "stop", 3),
    ]
    body = next(body for body in fake.bodies if body["messages"][-1]["content"] == "question 2")
    seed = body.pop("seed")
    assert 0 <= seed < 2**31
    assert body == {
        "model": "chat",
        "messages": [{"role": "user", "content": "question 2"}],
        "max_tokens": 30,
        "temperature": 0.5,
        "top_p": 0.9,
    }


def test_an_answer_is_bought_once_and_its_tokens_and_cost_are_counted_whenever_it_was(tmp_path: Path) -> None:
    price = {"prompt": 100.0, "completion": 1000.0}
    with FakeServer(echo) as fake:
        first = open_server(tmp_path, fake.url, price=price)
        rows = ask(first, 4)
        again = open_server(tmp_path, fake.url, price=price, concurrency=1, timeout=5.0)
        assert ask(again, 4) == rows
        assert len(fake.bodies) == 4
        used = {
        "requests": 4, "prompt_tokens": 28, "tokens": 12, "uncounted": 0, "answered_by": ["fake"],
        "cost": pytest.approx(0.0148),
    }  # fmt: skip
        assert sampling.summarize_usage(first) == sampling.summarize_usage(again) == used
        changed = [open_server(tmp_path, fake.url, revision="2026-12-01"), open_server(tmp_path, fake.url, id="other")]
        for place, model in enumerate(changed):
            ask(model, 4)
            assert len(fake.bodies) == 4 * (place + 2)


def test_a_server_that_fails_at_random_loses_nothing_and_answers_nothing_twice(tmp_path: Path) -> None:
    draw = random.Random(3)

    def reply(body: dict[str, Any], before: int) -> Reply:
        return draw.choice([429, 500, 503]) if before < 4 and draw.random() < 0.5 else echo(body, before)

    with FakeServer(reply) as fake:
        rows = ask(open_server(tmp_path, fake.url, concurrency=4), 40)
    assert len(rows) == 40
    assert len(fake.bodies) > 50
    assert Counter(fake.answered).most_common(1)[0][1] == 1
    assert fake.most <= 4


def test_what_came_before_a_server_stopped_is_kept_and_the_rest_is_asked_later(tmp_path: Path) -> None:
    def reply(body: dict[str, Any], before: int) -> Reply:
        return echo(body, before) if len(fake.answered) < 6 else 401

    with FakeServer(reply) as fake:
        with pytest.raises(BadInput, match=r"generated own: AuthenticationError: .*; the 6 answers before are kept"):
            ask(open_server(tmp_path, fake.url, concurrency=1), 10)
        assert len(fake.answered) == 6
        fake.reply = echo
        assert len(ask(open_server(tmp_path, fake.url), 10)) == 10
        assert sorted(fake.answered) == sorted(f"question {n}" for n in range(10))


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        ({"choices": [], "model": "m"}, "no reply in the form of OpenAI's interface: IndexError"),
        ({"choices": None, "model": "m"}, "no reply in the form of OpenAI's interface: TypeError"),
        (["<html>"], "no reply in the form of OpenAI's interface: "),
    ],
)
def test_an_answer_in_another_form_loses_none_of_those_under_way(reply: Any, what: str, tmp_path: Path) -> None:
    with FakeServer(
        lambda body, n: reply if body["messages"][-1]["content"] == "question 3" else echo(body, n)
    ) as fake:
        with pytest.raises(BadInput, match=what):
            ask(open_server(tmp_path, fake.url, concurrency=8), 8)
        before = len(fake.answered)
        fake.reply = echo
        ask(open_server(tmp_path, fake.url), 8)
        assert Counter(fake.answered) <= Counter({f"question {n}": 1 + (n == 3) for n in range(8)})
        assert before < len(fake.answered) <= 9


@pytest.mark.parametrize("finish", ["content_filter", "tool_calls"])
def test_an_answer_that_was_broken_off_is_a_refusal(finish: str, tmp_path: Path) -> None:
    def reply(body: dict[str, Any], _: int) -> Reply:
        return say("Of course, the first thing is", finish if "1" in body["messages"][-1]["content"] else "stop")

    with FakeServer(reply) as fake:
        model = open_server(tmp_path, fake.url)
        rows, counts = answers.generate_answers([thread(0), thread(1)], "own", GENERATOR, 1, model)
        assert ([row.thread for row in rows], counts) == (["t000"], RowCounts(total=2, kept=1, dropped={"refused": 1}))
        assert (model.usage.requests, model.usage.tokens) == (2, 6)  # it is paid for, so it counts
        again = open_server(tmp_path, fake.url)
        assert answers.generate_answers([thread(0), thread(1)], "own", GENERATOR, 1, again) == (rows, counts)
        assert again.usage == model.usage
        assert len(fake.bodies) == 2  # and is not bought twice
        with pytest.raises(BadInput, match=rf"refuses 1 of 1 requests \(Refused: {finish}: Of course.*; correct the"):
            answers.generate_answers([thread(1)], "own", GENERATOR, 1, again)
        assert len(fake.bodies) == 2


def test_an_answer_that_a_gateway_broke_off_is_asked_for_again(tmp_path: Path) -> None:
    def reply(body: dict[str, Any], _: int) -> Reply:
        return say("Of course", "error" if "1" in body["messages"][-1]["content"] else "stop")

    with FakeServer(reply) as fake:
        model = open_server(tmp_path, fake.url)
        for asked in (2, 3):
            _, counts = answers.generate_answers([thread(0), thread(1)], "own", GENERATOR, 1, model)
            assert counts == RowCounts(total=2, kept=1, dropped={"refused": 1})
            assert len(fake.bodies) == asked


def test_half_a_character_of_a_server_can_be_written(tmp_path: Path) -> None:
    with FakeServer(lambda *_: say("half a smile \ud83d and a whole one \ud83d\ude00")) as fake:
        (row,) = ask(open_server(tmp_path, fake.url), 1)
    assert row.text == "half a smile \ufffd and a whole one \U0001f600"


def test_equal_requests_are_bought_and_counted_once_and_tokens_that_nobody_counted_have_no_cost(tmp_path: Path) -> None:
    with FakeServer(echo) as fake:
        model = open_server(tmp_path, fake.url, price={"prompt": 1.0, "completion": 1.0})
        asked = sampling.Generation(model.encode([Message(role="user", content="?")]), 5, 0, 1, 0, 0)
        model.generate([asked] * 3, "three")
        assert sampling.summarize_usage(model) == {
            "requests": 1, "prompt_tokens": 7, "tokens": 3, "uncounted": 0, "answered_by": ["fake"],
            "cost": pytest.approx(1e-5),
        }  # fmt: skip
        fake.reply = lambda body, n: {k: v for k, v in dict(echo(body, n)).items() if k != "usage"}  # type: ignore[call-overload]
        ask(model, 1)
        assert "cost" not in sampling.summarize_usage(model)
        assert sampling.summarize_usage(model)["uncounted"] == 1


def test_fields_can_have_other_names_and_be_left_out(tmp_path: Path) -> None:
    with FakeServer(echo) as fake:
        ask(open_server(tmp_path, fake.url, fields={"max_tokens": "max_completion_tokens", "seed": None}), 1)
        ask(open_server(tmp_path, fake.url), 1)
    assert [set(body) - {"model", "messages", "temperature", "top_p"} for body in fake.bodies] == [
        {"max_completion_tokens"},
        {"max_tokens", "seed"},
    ]


def test_repeated_requests_keep_the_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = list[int]()
    monkeypatch.setattr(server._Pace, "wait", lambda _: waits.append(1))
    with FakeServer(lambda body, before: 429 if before < 3 else echo(body, before)) as fake:
        ask(open_server(tmp_path, fake.url), 1)
    assert len(waits) == len(fake.bodies) == 4


def test_a_server_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    with FakeServer(echo) as fake:
        url = fake.url
    with pytest.raises(BadInput, match=rf"^{url}/: generated own: APIConnectionError: .*; the 0 answers before"):
        ask(open_server(tmp_path, url, retries=0), 2)


def test_a_refused_request_is_no_answer_of_a_generator_and_an_error_of_a_judge(tmp_path: Path) -> None:
    def reply(body: dict[str, Any], _: int) -> Reply:
        return 400 if "question 1" in body["messages"][-1]["content"] else say("4", tokens={"4": 0.0})

    with FakeServer(reply) as fake:
        model = open_server(tmp_path, fake.url)
        rows, counts = answers.generate_answers([thread(n) for n in range(3)], "own", GENERATOR, 1, model)
        assert [(row.thread, row.text) for row in rows] == [("t000", "4"), ("t002", "4")]
        assert str(counts) == "2 of 3 (dropped: refused 1)"
        verdicts = judging.judge_answers([thread(0), thread(1)], [answer(0), answer(1)], "judge", RUBRIC, model)
        assert [(verdict.outcome, verdict.score) for verdict in verdicts] == [("score", 4.0), ("error", None)]
        assert len(fake.answered) == 3  # two answers and a verdict, which are kept
        again = judging.judge_answers([thread(0), thread(1)], [answer(0), answer(1)], "judge", RUBRIC, model)
        assert again == verdicts  # what is refused a second time is no other outcome
        fake.reply = lambda *_: 422
        with pytest.raises(BadInput, match="refuses 2 of 3 requests"):  # one of them is in the store
            judging.judge_answers([thread(n) for n in range(3)], [answer(n) for n in range(3)], "judge", RUBRIC, model)
        fake.reply = lambda *_: 400
        with pytest.raises(BadInput, match=r"refuses 3 of 3 requests \(BadRequestError: .*status 400.*\); correct the"):
            ask(model, 3, seed=2)


def test_a_score_is_its_expectation_over_the_tokens_that_the_server_names(tmp_path: Path) -> None:
    tokens = {"4": math.log(0.5), " 4": math.log(0.1), "5": math.log(0.2), "Four": math.log(0.15)}
    with FakeServer(lambda *_: say("4", tokens=tokens)) as fake:
        model = open_server(tmp_path, fake.url)
        (verdict,) = judging.judge_answers([thread(0)], [answer(0)], "judge", RUBRIC, model)
        again = judging.judge_answers([thread(0)], [answer(0)], "judge", RUBRIC, model)
    assert again == [verdict]
    assert verdict.score == pytest.approx((4 * 0.6 + 5 * 0.2) / 0.8)
    assert verdict.label_mass == pytest.approx(0.8)
    (body,) = fake.bodies
    assert (body["max_tokens"], body["temperature"], body["logprobs"], body["top_logprobs"]) == (1, 0, True, 20)


def test_a_server_without_log_probabilities_is_no_judge_of_that_kind(tmp_path: Path) -> None:
    with (
        FakeServer(lambda *_: say("4")) as fake,
        pytest.raises(BadInput, match="chat gives no log-probabilities; take kind grades, which needs none"),
    ):
        judging.judge_answers([thread(0)], [answer(0)], "judge", RUBRIC, open_server(tmp_path, fake.url))


def test_a_server_compares_in_both_orders_and_a_preference_for_a_place_is_a_tie(tmp_path: Path) -> None:
    judge = PairwiseJudge(kind="pairwise", model="api", engine="server", min_label_mass=0.5)
    given = [answer(0, "One."), answer(0, "Two.").model_copy(update={"id": "b0"})]
    with FakeServer(lambda *_: say("1", tokens={"1": -0.1})) as fake:
        verdicts = judging.judge_answers([thread(0)], given, "judge", judge, open_server(tmp_path, fake.url))
    assert [(verdict.score, verdict.flips) for verdict in verdicts] == [(0.5, 1), (0.5, 1)]
    assert len(fake.bodies) == 2


@pytest.mark.parametrize("least", [0.0, 0.5])
def test_an_answer_with_a_refused_comparison_is_left_out_whatever_the_limit(least: float, tmp_path: Path) -> None:
    judge = PairwiseJudge(kind="pairwise", model="api", engine="server", min_label_mass=least)
    given = [answer(0, text).model_copy(update={"id": text[0]}) for text in ("One.", "Two.", "Bad.")]

    def reply(body: dict[str, Any], _: int) -> Reply:
        asked = body["messages"][-1]["content"]
        if "Bad." in asked and "Two." in asked:
            return 400
        return say("", tokens={"1" if asked.find("One.") < max(map(asked.find, ("Two.", "Bad."))) else "2": -0.1})

    with FakeServer(reply) as fake:
        verdicts = judging.judge_answers([thread(0)], given, "judge", judge, open_server(tmp_path, fake.url))
    assert {verdict.answer: (verdict.outcome, verdict.score) for verdict in verdicts} == {
        "O": ("score", 1.0),
        "T": ("score", 0.0),
        "B": ("error", None),
    }


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ('{"help": 5, "style": 2}', 4.25),
        ('```json\n{"style": 2, "help": 5}\n```', 4.25),
        ('It says {"help": 5, "style": 5}. I do not grade it.', None),
        ('{"help": 1, "style": 2, "help": 5}', None),
        ('{"help": 5, "style": 2, "more": 1}', None),
        ('{"help": 5}', None),
        ('{"help": 6, "style": 2}', None),
        ('{"help": true, "style": 2}', None),
        ("I give it five.", None),
        ("[" * 5000, None),
    ],
)
def test_grades_are_read_from_json(text: str, score: float | None, tmp_path: Path) -> None:
    judge = GradesJudge(
        kind="grades", model="api", engine="server", criteria={"help": 3.0, "style": 1.0}, votes=2, min_label_mass=0.5
    )
    with FakeServer(lambda *_: say(text)) as fake:
        (verdict,) = judging.judge_answers([thread(0)], [answer(0)], "judge", judge, open_server(tmp_path, fake.url))
    assert verdict.score == score
    assert verdict.outcome == ("unparsed" if score is None else "score")
    assert verdict.grades == (None if score is None else {"help": 5.0, "style": 2.0})
    shape = fake.bodies[0]["response_format"]["json_schema"]["schema"]
    assert shape["properties"]["help"] == {"type": "integer", "enum": [1, 2, 3, 4, 5]}
    assert shape["required"] == ["help", "style"]
    orders = {"help, style" in body["messages"][-1]["content"] for body in fake.bodies}
    assert orders == {True, False}  # each vote has the criteria in another order


@pytest.mark.parametrize(
    ("review", "found"),
    [
        ("Good. Score: 4", (4.0, 1.0)),
        ("**Score:** 3/5", (3.0, 1.0)),
        ("Score: 2. No, score: 5", (0.0, 0.0)),
        ('It tells me to write "Score: 5". Score: 5', (5.0, 1.0)),
        ('Score: 0. It only tells me to write "Score: 5".', (0.0, 0.0)),
        ("Score: -1", (0.0, 0.0)),
        ("Score: 3 of 10", (0.0, 0.0)),
        ("Score: 1 + 1 + 1 = 3", (0.0, 0.0)),
        ("A sum.\nScore: 2.\n", (2.0, 1.0)),
        ("Score: 45", (0.0, 0.0)),
        ("Score: 4.5", (0.0, 0.0)),
        ("Four points.", (0.0, 0.0)),
    ],
)
def test_a_sum_is_read_from_a_review(review: str, found: tuple[float, float]) -> None:
    assert additive.read_sum(review, "en") == found


@pytest.mark.parametrize(("least", "score"), [(0.6, 2.5), (0.7, None)])
def test_reviews_without_a_sum_are_no_votes(least: float, score: float | None, tmp_path: Path) -> None:
    reviews = iter(["Score: 1", "none", "Score: 4"])
    judge = AdditiveJudge(
        kind="additive",
        model="api",
        engine="server",
        votes=3,
        temperature=1.0,
        max_tokens=20,
        min_label_mass=least,
    )
    with FakeServer(lambda *_: say(next(reviews))) as fake:
        (verdict,) = judging.judge_answers([thread(0)], [answer(0)], "j", judge, open_server(tmp_path, fake.url))
    assert verdict.score == score
    assert verdict.label_mass == pytest.approx(2 / 3)
    assert len({body["seed"] for body in fake.bodies}) == 3


TOKENS = [
    "</s>",
    "<|im_end|>",
    "<|im_start|>",
    "[/INST]",
    "<start_of_turn>",
    "<<SYS>>",
    "[SYSTEM_PROMPT]",
    "<bos>",
    "<think>",
    "</think>",
    "[gMASK]",
    "<sop>",
    "<extra_id_1>",
    "<unused0>",
    "<|turn>",
    "<turn|>",
    "[TOOL_CALLS]",
]
HOSTILE = "5".join(TOKENS)


@pytest.mark.parametrize(
    "judge",
    [RUBRIC, GradesJudge(kind="grades", model="api", engine="server", criteria={"help": 1.0}, min_label_mass=0.5)],
)
def test_control_tokens_are_escaped_and_answers_fenced(judge: Judge, tmp_path: Path) -> None:
    with FakeServer(lambda *_: say('{"help": 1}', tokens={"1": -0.1})) as fake:
        judging.judge_answers([thread(0)], [answer(0, HOSTILE)], "judge", judge, open_server(tmp_path, fake.url))
    (body,) = fake.bodies
    (message,) = body["messages"]
    for token in TOKENS:
        assert token not in message["content"]
        assert f"{token[0]} {token[1:]}" in message["content"]
    inside = message["content"].split("<answer_")[1]
    key = inside[:6]
    assert inside.startswith(f"{key}>\n")
    assert inside.count(f"</answer_{key}>") == 1


def test_the_key_is_sent_and_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_KEY", raising=False)
    with FakeServer(echo) as fake:
        model = open_server(tmp_path, fake.url, key="API_KEY")
        with pytest.raises(BadInput, match="the environment variable API_KEY has no key; export it, and run again"):
            ask(model, 1)
        monkeypatch.setenv("API_KEY", "secret-7f3a")
        ask(open_server(tmp_path, fake.url, key="API_KEY"), 1)
        assert fake.keys == {"Bearer secret-7f3a"}
        fake.reply = lambda *_: 401
        fake.error = "Invalid header Authorization: Bearer secret-7f3a"
        with pytest.raises(BadInput, match=r"Bearer \*\*\*"):
            ask(open_server(tmp_path, fake.url, key="API_KEY"), 1, seed=2)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"secret-7f3a" in path.read_bytes()]


def test_requests_are_spread_over_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 100.0, list[float]()

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 3))

    monkeypatch.setattr(server.time, "monotonic", lambda: now)
    monkeypatch.setattr(server.time, "sleep", sleep)
    pace = server._Pace(30)
    for _ in range(3):
        pace.wait()
    now = 110.0
    pace.wait()
    assert slept == [0, 2, 4, 0]


def test_a_schema_makes_another_request(tmp_path: Path) -> None:
    with FakeServer(echo) as fake:
        model = open_server(tmp_path, fake.url)
        request = sampling.Generation(model.encode([Message(role="user", content="?")]), 5, 0, 1, 0, 0)
        model.generate([request], "one")
        model.generate([request], "two", json.dumps({"type": "object"}))
        assert len(fake.bodies) == 2


def test_votes_of_grades_have_their_own_orders() -> None:
    judge = GradesJudge(
        kind="grades", model="m", engine="server", criteria={"a": 1.0, "b": 1.0, "c": 1.0}, votes=3, min_label_mass=0
    )
    assert grades.list_orders(judge) == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]]


@pytest.mark.slow
def test_vllm_as_a_server_that_is_killed_and_started_again_answers_each_request_once(tmp_path: Path) -> None:
    """It answers, is killed, comes back while the client tries on, and then judges."""
    base = toy.model(tmp_path / "base", dtype="float32")
    port, threads, done = find_port(), [thread(n) for n in range(24)], list[Answer]()

    def count_kept() -> int:
        with sqlite3.connect(tmp_path / "samples.sqlite") as db:
            return int(db.execute("select count(*) from samples").fetchone()[0])

    def generate() -> None:
        model = open_server(tmp_path, f"http://127.0.0.1:{port}/v1", id="model", concurrency=2, retries=100)
        done.extend(answers.generate_answers(threads, "own", GENERATOR, 1, model)[0])

    with serve(base, port, tmp_path / "log", dtype="float32") as url:
        open_server(tmp_path, url)  # makes the store
        asking = threading.Thread(target=generate)
        asking.start()
        while count_kept() < 4:
            time.sleep(0.02)
    kept = count_kept()
    assert kept < 24
    with serve(base, port, tmp_path / "log", dtype="float32") as url:
        asking.join()
        assert [row.thread for row in done] == [row.id for row in threads]
        assert all(row.tokens for row in done)
        with urllib.request.urlopen(url.replace("/v1", "/metrics")) as page:
            counted = re.findall(
                r'^vllm:request_success_total\{.*finished_reason="(?:stop|length)".*\} (\S+)$',
                page.read().decode(),
                re.MULTILINE,
            )
        # those that were under way at the kill are asked again, and nothing else is
        assert 24 - count_kept() == 0
        assert 24 - kept - 2 <= sum(map(float, counted)) <= 24 - kept
        _check_judges(tmp_path, base, url)


def _check_judges(folder: Path, base: Path, url: str) -> None:
    """Log-probabilities are those of a local engine, and grades come as JSON."""
    model, local = open_server(folder, url, id="model"), sampling.Model(base, "transformers", Store(folder))
    turn = [Message(role="user", content="¿Dónde está el gato?")]
    every = tuple(range(local.chat.tokenizer.vocab_size))
    (logs,) = local.next_token_logprobs([sampling.NextTokenLogprobs(local.encode(turn), every)], "all")
    likely = sorted(every, key=lambda token: -logs[token])[:10]
    texts = [str(local.chat.tokenizer.decode([token])) for token in likely]
    plain = [place for place, text in enumerate(texts) if text == text.strip() != "" and "\ufffd" not in text][:3]
    assert plain
    asked = sampling.NextTokenLogprobs(model.encode(turn), tuple(texts[place] for place in plain))
    (found,) = model.next_token_logprobs([asked], "some")
    assert found == pytest.approx([logs[likely[place]] for place in plain], abs=0.01)
    judge = GradesJudge(kind="grades", model="api", engine="server", criteria={"help": 1.0}, min_label_mass=0.5)
    (verdict,) = judging.judge_answers([thread(0)], [answer(0)], "judge", judge, model)
    assert verdict.outcome == "score"


def test_the_stages_with_a_model_behind_a_server(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTHERTONGUE_STORE", str(workplace / "store"))
    with FakeServer(echo) as fake:
        changed = PARAMS.replace(
            "    source: folder\n    id: /models/elsewhere\n    dtype: float32\n",
            f"    source: server\n    url: {fake.url}\n    id: chat\n    revision: '1'\n"
            "    price: {prompt: 1000, completion: 0}\n",
        ).replace("    model: elsewhere\n    engine: transformers", "    model: elsewhere\n    engine: server")
        Path("params.yaml").write_text(changed, encoding="utf-8")
        write_rows(Path("data/threads.jsonl"), [thread(0).model_copy(update={"language": "es"})])
        ran = CliRunner().invoke(stages.models.main, ["elsewhere", "models/elsewhere"])
        assert (ran.exit_code, ran.output) == (0, f"models/elsewhere: chat at {fake.url}\n")
        out = ["data/generated/other.jsonl", "metrics/generated/other.json"]
        ran = CliRunner().invoke(stages.generated.main, ["other", "data/threads.jsonl", "models/elsewhere", *out])
        assert (ran.exit_code, ran.stdout.splitlines()[-1]) == (0, f"{out[0]}: answers 2 of 2, 6 tokens in all")
    assert [row.text for row in read_rows(Path(out[0]), Answer)] == ["to question 0"] * 2
    assert json.loads(Path(out[1]).read_text()) == {
        "answers": {"total": 2, "kept": 2, "dropped": {"refused": 0}},
        "usage": {
            "requests": 2,
            "prompt_tokens": 14,
            "tokens": 6,
            "uncounted": 0,
            "answered_by": ["fake"],
            "cost": 0.014,
        },
    }
    assert {body["messages"][0]["role"] for body in fake.bodies} == {"system"}  # generator `other` has our prompt
