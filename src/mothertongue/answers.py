"""What generators say to threads."""

from collections.abc import Sequence

from mothertongue import prompts
from mothertongue.params import Generator
from mothertongue.records import Answer, Message, Thread, row_id
from mothertongue.sampling import Generate, Model, seed_of


def generated(
    threads: Sequence[Thread], name: str, params: Generator, language: str, seed: int, model: Model
) -> list[Answer]:
    """`params.n` answers from one generator to every thread."""
    asked = [(thread, index) for thread in threads for index in range(params.n)]
    ids = {
        thread.id: model.chat.prompt(guided(thread.prompt, language) if params.guide else thread.prompt)
        for thread in threads
    }
    requests = [
        Generate(
            prompt=ids[thread.id],
            max_tokens=params.max_tokens,
            temperature=params.temperature,
            top_p=params.top_p,
            seed=seed_of(seed, thread.id, index),
            index=index,
        )
        for thread, index in asked
    ]
    return [
        Answer(
            id=row_id(thread.id, name, index, said.text),
            thread=thread.id,
            generator=name,
            index=index,
            text=said.text,
            tokens=said.tokens,
            finish=said.finish,
        )
        for (thread, index), said in zip(asked, model.generate(requests, f"generated {name}"), strict=True)
    ]


def guided(messages: Sequence[Message], language: str) -> list[Message]:
    """A conversation with the guide as its system turn, before what a system turn of its own says."""
    guide = prompts.text("guide", language)
    if messages and messages[0].role == "system":
        return [Message(role="system", content=f"{guide}\n\n{messages[0].content}"), *messages[1:]]
    return [Message(role="system", content=guide), *messages]
