"""A server with OpenAI's interface, such as vLLM's: it is sent messages, and each answer is kept as it arrives."""

import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property
from pathlib import Path
from typing import Any

from mothertongue.errors import BadInput
from mothertongue.files import read_json_object
from mothertongue.origin import SERVER
from mothertongue.params import ServerModel
from mothertongue.records import Message
from mothertongue.sampling import Completion, Generation, NextTokenLogprobs, Prompt, Usage
from mothertongue.store import Store

ALTERNATIVES = 20  # the most likely tokens that OpenAI's interface names at most
# A server's own control tokens are not known here: those of common models.
_CONTROL = re.compile(r"<\|[^<>|]{1,40}\|>|</?s>|<</?SYS>>|\[/?INST\]|<(?:start|end)_of_turn>|<[｜][^<>]{1,40}[｜]>")


class Server:
    """A model behind a server, whose every answer goes through the sample store: what was paid for is not asked again.

    It has those methods of sampling.Model that messages and text suffice for. Options are texts and no token ids.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store
        self.params = ServerModel.model_validate(read_json_object(folder / SERVER, "run stage models"))
        self.identity = {"server": self.params.url, "model": self.params.id, "revision": self.params.revision}
        self.usage, self.price = Usage(), self.params.price
        self._pace = _Pace(self.params.per_minute)

    @cached_property
    def _client(self) -> Any:
        from openai import OpenAI

        params = self.params
        if params.key and not os.environ.get(params.key):
            raise BadInput(f"{params.url}: the environment variable {params.key} has no key; export it, and run again")
        key = os.environ[params.key] if params.key else "none"
        return OpenAI(base_url=params.url, api_key=key, timeout=params.timeout, max_retries=params.retries)

    def encode(self, messages: Sequence[Message], opening: str = "") -> Prompt:  # noqa: ARG002, as Model.encode
        """Messages as they are sent, control tokens of common models escaped. An opening of the answer is left out.

        OpenAI's interface has no place for it: a request has to say what the answer should be like.
        """
        return tuple(
            (message.role, _CONTROL.sub(lambda found: f"{found[0][0]} {found[0][1:]}", message.content))
            for message in messages
        )

    def find_options(self, values: Sequence[int]) -> tuple[str, ...]:
        """Numbers as NextTokenLogprobs.options."""
        return tuple(map(str, values))

    def generate(
        self, requests: Sequence[Generation], label: str, schema: str | None = None
    ) -> list[Completion | None]:
        """One completion per request, in order; None where the server refuses a request, of which there is a count.

        With a JSON schema the answer is an object of that form, where the server has structured output. The schema is
        part of what the store knows a request by.
        """
        return self._ask(requests, lambda request: self._complete(request, schema), label, schema)

    def next_token_logprobs(self, requests: Sequence[NextTokenLogprobs], label: str) -> list[list[float] | None]:
        """For each request the log-probabilities of its options as the answer's first token, in order; None as above.

        Of tokens that differ in white space around them the probabilities are added. An option that is not among the
        20 likeliest tokens has the log-probability -inf. Raises BadInput where the server gives no log-probabilities.
        """
        return self._ask(requests, self._weigh, label)

    def _ask(
        self, requests: Sequence[Any], ask: Callable[[Any], Any], label: str, schema: str | None = None
    ) -> list[Any]:
        identity = self.identity | ({"schema": schema} if schema else {})
        found = self.store.get_or_request(identity, requests, lambda part: self._stream(part, ask, label), label)
        kept = [value for value in found if value is not None]
        self.usage += Usage(len(kept), *(sum(value[name] for value in kept) for name in ("prompt_tokens", "tokens")))
        return [value and (value["logprobs"] if "logprobs" in value else Completion(**value)) for value in found]

    def _stream(self, requests: Sequence[Any], ask: Callable[[Any], Any], label: str) -> Iterator[tuple[int, Any]]:
        """(place, result) of each request as its answer arrives; nothing for a refused one, and for one not sent.

        Raises BadInput, once all that was sent is there, where the server cannot be reached, or refuses all requests.
        """
        import openai

        client, problem, refused, answered = self._client, None, "", 0
        pool = ThreadPoolExecutor(self.params.concurrency)
        try:
            places = {pool.submit(ask, request): place for place, request in enumerate(requests)}
            for future in as_completed(places):
                if future.cancelled():
                    continue
                try:
                    result = future.result()
                except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                    refused = refused or _describe(error)
                except openai.OpenAIError as error:
                    problem = problem or error
                    for other in places:
                        other.cancel()
                else:
                    answered += 1
                    yield places[future], result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        what = f"{client.base_url}: {label}"
        if problem:
            raise BadInput(f"{what}: {_describe(problem)}; the {answered} answers before are kept: run it again")
        if refused and not answered:
            raise BadInput(f"{what}: the server refuses all {len(requests)} requests ({refused}); correct the model")

    def _complete(self, request: Generation, schema: str | None) -> Completion:
        more: dict[str, Any] = {}
        if schema:
            shape = {"name": "answer", "strict": True, "schema": json.loads(schema)}
            more = {"response_format": {"type": "json_schema", "json_schema": shape}}
        choice, usage = self._send(
            request.prompt,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            **more,
        )
        return Completion(
            text=(choice.message.content or "").strip(),
            tokens=usage.completion_tokens if usage else 0,
            finish="length" if choice.finish_reason == "length" else "stop",
            prompt_tokens=usage.prompt_tokens if usage else 0,
        )

    def _weigh(self, request: NextTokenLogprobs) -> dict[str, Any]:
        choice, usage = self._send(
            request.prompt, max_tokens=1, temperature=0, logprobs=True, top_logprobs=ALTERNATIVES
        )
        if not choice.logprobs or not choice.logprobs.content:
            raise BadInput(
                f"{self.params.url}: {self.params.id} gives no log-probabilities; take kind grades, which needs none"
            )
        masses = dict.fromkeys(map(str, request.options), 0.0)
        for token in choice.logprobs.content[0].top_logprobs:
            if (text := token.token.strip()) in masses:
                masses[text] += math.exp(token.logprob)
        return {
            "logprobs": [math.log(mass) if mass else -math.inf for mass in masses.values()],
            "prompt_tokens": usage.prompt_tokens if usage else 0,
            "tokens": usage.completion_tokens if usage else 0,
        }

    def _send(self, prompt: Prompt, **parameters: Any) -> tuple[Any, Any]:
        self._pace.wait()
        messages = [{"role": role, "content": content} for role, content in prompt]
        answer = self._client.chat.completions.create(model=self.params.id, messages=messages, **parameters)
        return answer.choices[0], answer.usage


class _Pace:
    """At most so many starts a minute, evenly spread."""

    def __init__(self, per_minute: int | None) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + self._gap
        time.sleep(begin - now)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
