"""Answers of generators to threads."""

from collections.abc import Sequence

from mothertongue import prompts
from mothertongue.errors import BadInput
from mothertongue.params import Generator
from mothertongue.records import Answer, Message, Thread, row_id, unit_hash
from mothertongue.sampling import Generation, Model, derive_seed
from mothertongue.sampling.server import Server


def generate_answers(
    threads: Sequence[Thread], name: str, params: Generator, seed: int, model: Model | Server
) -> list[Answer]:
    """`params.n` answers of one generator to every held-out thread, and to `params.train_share` of the others.

    These are drawn by their ids: the same ones for every generator with the same share, and all of them are among those
    of a larger share. Prompts without an expert's answer are all answered: they are there for nothing else. Raises
    BadInput where a server refuses to answer some: the others' answers are kept.
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
    refused = {thread.id: thread.prompt[-1].content for (thread, _), completion in written if completion is None}
    if refused:
        first = " ".join(min(refused.items())[1].split())[:80]
        raise BadInput(
            f"generated.{name}: the server refuses {len(refused)} of {len(chosen)} threads, such as {min(refused)}"
            f" ({first!r}); take their conversations out, or take another model"
        )
    return [
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


def _conversation(thread: Thread, params: Generator) -> Sequence[Message]:
    return add_system_prompt(thread.prompt, thread.language) if params.system_prompt else thread.prompt


def add_system_prompt(messages: Sequence[Message], language: str) -> list[Message]:
    """A conversation with prompts/system_prompt as its system turn, before the text of a system turn of its own."""
    text = prompts.render("system_prompt", language)
    if messages and messages[0].role == "system":
        return [Message(role="system", content=f"{text}\n\n{messages[0].content}"), *messages[1:]]
    return [Message(role="system", content=text), *messages]
