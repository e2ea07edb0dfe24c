"""What is measured: a model with or without a system prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mothertongue import answers
from mothertongue.errors import BadInput
from mothertongue.params import Metrics
from mothertongue.records import Message
from mothertongue.sampling import Generation, LogLikelihood, Model


class Asked(NamedTuple):
    """A conversation and its language."""

    messages: Sequence[Message]
    language: str


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that is measured, with or without a system turn before every conversation."""

    model: Model
    system_prompt: bool
    limits: Metrics

    def conversation(self, asked: Asked) -> list[Message]:
        """The messages, with the system prompt if the subject has one."""
        if self.system_prompt:
            return answers.add_system_prompt(asked.messages, asked.language)
        return list(asked.messages)

    def generate(self, asked: Sequence[Asked], max_tokens: int, label: str) -> list[tuple[str, str]]:
        """(text, finish) of the answer to each conversation, by greedy decoding."""
        encoded = [self.model.chat.encode_prompt(self.conversation(each)) for each in asked]
        requests = [Generation(prompt, max_tokens, temperature=0, top_p=1, seed=0, index=0) for prompt in encoded]
        return [(completion.text, completion.finish) for completion in self.model.generate(requests, label)]

    def log_likelihood(self, asked: Sequence[tuple[Asked, str, bool]], label: str) -> list[list[float]]:
        """Log-probabilities of each answer's tokens; `asked` is (conversation, answer, whether the answer ended)."""
        encoded = [
            self.model.chat.encode_answer(self.conversation(each), answer, ended=ended) for each, answer, ended in asked
        ]
        requests = [LogLikelihood(prompt=prompt, continuation=answer) for prompt, answer in encoded]
        return self.model.log_likelihood(requests, label)


def detect_template_system_prompt(subject: Subject) -> str | None:
    """The system turn that the chat template writes where a conversation has none; None where it writes none.

    It is the text in the place where a system turn of the conversation would be.
    """
    chat = subject.model.chat
    user, own = Message(role="user", content="?"), Message(role="system", content="@")
    try:
        bare, marked = (str(chat.tokenizer.decode(chat.encode_prompt(turns))) for turns in ([user], [own, user]))
    except BadInput:  # a template that refuses system turns writes none
        return None
    before, _, after = marked.partition("@")
    inside = bare[len(before) : len(bare) - len(after)].strip()
    return inside if inside and bare.startswith(before) and bare.endswith(after) else None
