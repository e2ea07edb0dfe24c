"""Answers of generators to threads."""

from collections.abc import Sequence

from mothertongue import prompts
from mothertongue.params import Generator
from mothertongue.records import Answer, Message, RowCounts, Thread, row_id, unit_hash
from mothertongue.sampling import Generation, Model, derive_seed
from mothertongue.sampling.server import Server


def generate_answers(
    threads: Sequence[Thread], name: str, params: Generator, seed: int, model: Model | Server
) -> tuple[list[Answer], RowCounts]:
    """`params.n` answers of one generator to every held-out thread, and to `params.train_share` of the others.

    With them the number that was asked for, and of those that a server refused to give, which no rule finds later.

    These are drawn by their ids: the same ones for every generator with the same share, and all of them are among those
    of a larger share. Prompts without an expert's answer are all answered: they are there for nothing else.
    """
    chosen = [
        row
        for row in threads
        if row.split != "train" or row.reference is None or unit_hash(row.id) < params.train_share
    ]
    asked = [(thread, index) for thread in chosen for index in range(params.n)]
    encoded = {thread.id: model.encode(_conversation(thread, params)) for thread in chosen}
    requests = [
        Generation(
            prompt=encoded[thread.id],
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            seed=derive_seed(seed, thread.id, index),
            index=index,
        )
        for thread, index in asked
    ]
    written = list(zip(asked, model.generate(requests, f"generated {name}"), strict=True))
    rows = [
        Answer(
            id=row_id(thread.id, name, index, completion.text),
            thread=thread.id,
            generator=name,
            index=index,
            text=completion.text,
            tokens=completion.tokens,
            finish=completion.finish,
        )
        for (thread, index), completion in written
        if completion is not None
    ]
    counts = RowCounts(total=len(written), kept=len(rows), dropped={"refused": len(written) - len(rows)})
    return rows, counts


def _conversation(thread: Thread, params: Generator) -> Sequence[Message]:
    return add_system_prompt(thread.prompt, thread.language) if params.system_prompt else thread.prompt


def add_system_prompt(messages: Sequence[Message], language: str) -> list[Message]:
    """A conversation with prompts/system_prompt as its system turn, before the text of a system turn of its own."""
    text = prompts.render("system_prompt", language)
    if messages and messages[0].role == "system":
        return [Message(role="system", content=f"{text}\n\n{messages[0].content}"), *messages[1:]]
    return [Message(role="system", content=text), *messages]
