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

REVISION = 1  # of what is kept of a reply: raise it when that changes
ALTERNATIVES = 20  # the most likely tokens that OpenAI's interface names at most
# A server's own control tokens are not known here: those of common models, by their forms.
_CONTROL = re.compile(
    r"<\|[^<>|\s]{1,40}\|?>|<[^<>|\s]{1,40}\|>|<[｜][^<>]{1,40}[｜]>|<</?SYS>>|\[/?[A-Z][A-Z_]{2,30}\]|\[gMASK\]"
    r"|</?(?:s|bos|eos|pad|unk|mask|sop|eop|think|tool_call|tool_response|(?:start|end)_of_turn|unused\d+|extra_id_\d+)>"
)


class _BrokenOff(Exception):
    """An answer that ended for a reason that need not be there the next time, such as an error of a gateway."""


class _Refused(Exception):
    """An answer that the server refuses to give, or that a filter broke off; it is paid for."""

    def __init__(self, why: str, used: dict[str, Any]) -> None:
        super().__init__(why)
        self.used = used


class Server:
    """A model behind a server, whose every answer goes through the sample store: what was paid for is not asked again.

    It has those methods of sampling.Model that messages and text suffice for. Options are texts and no token ids.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store
        self.params = ServerModel.model_validate(read_json_object(folder / SERVER, "run stage models"))
        self.identity = {
            "server": self.params.url,
            "model": self.params.id,
            "revision": self.params.revision,
            "client": f"r{REVISION} {ALTERNATIVES}",
        }
        if self.params.fields:
            self.identity["fields"] = json.dumps(self.params.fields, sort_keys=True)
        self.answered_by: set[str] = set()  # the names that the server gives its model: another one may come any day
        self.usage, self.price = Usage(), self.params.price
        self._refusal = ""  # why the first of the requests was refused that got no answer at all
        self._pace = _Pace(self.params.per_minute)

    @cached_property
    def _client(self) -> Any:
        from openai import DefaultHttpxClient, Omit, OpenAI

        params = self.params
        if params.key and not os.environ.get(params.key):
            raise BadInput(f"{params.url}: the environment variable {params.key} has no key; export it, and run again")
        key = os.environ[params.key] if params.key else "none"
        wait = DefaultHttpxClient(event_hooks={"request": [lambda _: self._pace.wait()]})  # before repeated ones, too
        return OpenAI(
            base_url=params.url,
            api_key=key,
            timeout=params.timeout,
            max_retries=params.retries,
            http_client=wait,
            # Not those of the environment, which are for OpenAI's own server.
            default_headers={"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()},  # type: ignore[dict-item]
        )

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
        kept = [value for value in dict(zip(requests, found, strict=True)).values() if value]  # equal ones are one
        refused = [value for value in found if not value or "refused" in value]
        if 2 * len(refused) > len(requests):  # no text, but the request's form is what it refuses
            why = self._refusal or next(value["refused"] for value in refused if value)
            what = f"{self.params.url}: {label}: the server refuses {len(refused)} of {len(requests)} requests"
            raise BadInput(f"{what} ({why}); correct the model's entry in params.yaml, or what is asked")
        prompts, tokens = (sum(value["used"][name] for value in kept) for name in ("prompt_tokens", "tokens"))
        self.usage += Usage(len(kept), prompts, tokens, sum(not value["used"]["counted"] for value in kept))
        self.answered_by |= {value["used"]["model"] for value in kept}
        return [_read(value) for value in found]

    def _stream(self, requests: Sequence[Any], ask: Callable[[Any], Any], label: str) -> Iterator[tuple[int, Any]]:
        """(place, result) of each request as its answer arrives; nothing for one that got none, and for one not sent.

        A refusal that is an answer, and so has a price, is a result.
        Raises BadInput, once all that was sent is there, where the server cannot be reached or answers in another form.
        """
        import openai

        client, answered = self._client, 0
        problem: Exception | None = None
        pool = ThreadPoolExecutor(self.params.concurrency)
        try:
            places = {pool.submit(ask, request): place for place, request in enumerate(requests)}
            for future in as_completed(places):
                if future.cancelled():
                    continue
                try:
                    result = future.result()
                except (openai.BadRequestError, openai.UnprocessableEntityError, _BrokenOff) as error:
                    self._refusal = self._refusal or self._describe(error)
                except _Refused as error:
                    answered += 1
                    yield places[future], {"refused": self._describe(error), "used": error.used}
                except Exception as error:  # noqa: BLE001, of whatever class: what is under way is paid for
                    problem = problem or error
                    for other in places:
                        other.cancel()
                else:
                    answered += 1
                    yield places[future], result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()
            self.__dict__.pop("_client", None)
        if isinstance(problem, BadInput):
            raise problem
        if problem:
            form = "" if isinstance(problem, openai.OpenAIError) else "no reply in the form of OpenAI's interface: "
            what = f"{client.base_url}: {label}: {form}{self._describe(problem)}"
            raise BadInput(f"{what}; the {answered} answers before are kept: run it again") from problem

    def _complete(self, request: Generation, schema: str | None) -> dict[str, Any]:
        more: dict[str, Any] = {}
        if schema:
            shape = {"name": "answer", "strict": True, "schema": json.loads(schema)}
            more = {"response_format": {"type": "json_schema", "json_schema": shape}}
        choice, used = self._send(
            request.prompt,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            **more,
        )
        # Half a character, which could not be written to a file, becomes U+FFFD.
        text = choice.message.content.encode("utf-16", "surrogatepass").decode("utf-16", "replace").strip()
        return {"text": {"text": text, "tokens": used["tokens"], "finish": choice.finish_reason}, "used": used}

    def _weigh(self, request: NextTokenLogprobs) -> dict[str, Any]:
        choice, used = self._send(request.prompt, max_tokens=1, temperature=0, logprobs=True, top_logprobs=ALTERNATIVES)
        if not choice.logprobs or not choice.logprobs.content:
            raise BadInput(
                f"{self.params.url}: {self.params.id} gives no log-probabilities; take kind grades, which needs none"
            )
        masses = dict.fromkeys(map(str, request.options), 0.0)
        for token in choice.logprobs.content[0].top_logprobs:
            if (text := token.token.strip()) in masses:
                masses[text] += math.exp(token.logprob)
        return {"logprobs": [math.log(mass) if mass else -math.inf for mass in masses.values()], "used": used}

    def _send(self, prompt: Prompt, **parameters: Any) -> tuple[Any, dict[str, Any]]:
        """The first choice, and what the request took. Raises _Refused where there is no whole answer."""
        messages = [{"role": role, "content": content} for role, content in prompt]
        names = {name: self.params.fields.get(name, name) for name in parameters}
        fields = {name: parameters[own] for own, name in names.items() if name is not None}
        answer = self._client.chat.completions.create(model=self.params.id, messages=messages, **fields)
        choice, usage = answer.choices[0], answer.usage
        used = {
            "prompt_tokens": usage.prompt_tokens if usage else 0,
            "tokens": usage.completion_tokens if usage else 0,
            "counted": usage is not None,
            "model": str(answer.model),
        }
        why = f"{choice.finish_reason}: {choice.message.refusal or choice.message.content}"
        if choice.finish_reason not in ("stop", "length", "content_filter", "tool_calls", "function_call"):
            raise _BrokenOff(why)
        if choice.message.refusal or choice.message.content is None or choice.finish_reason not in ("stop", "length"):
            raise _Refused(why, used)
        return choice, used

    def _describe(self, error: Exception) -> str:
        """An error's class and words, without the key, which some gateways quote."""
        text = " ".join(str(error).split())
        if key := self.params.key and os.environ.get(self.params.key):
            text = text.replace(key, "***")
        return f"{type(error).__name__.lstrip('_')}: {text[:300]}"


def _read(value: dict[str, Any] | None) -> Completion | list[float] | None:
    """What the store kept of an answer; None where it is a refusal, or there was none."""
    if not value or "refused" in value:
        return None
    found: list[float] | None = value.get("logprobs")
    return Completion(**value["text"]) if found is None else found


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
