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
    guide = [Message(role="system", content=prompts.text("guide", language))] if params.guide else []
    asked = [(thread, index) for thread in threads for index in range(params.n)]
    ids = {thread.id: model.chat.prompt([*guide, *thread.prompt]) for thread in threads}
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
