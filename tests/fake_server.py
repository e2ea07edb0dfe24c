"""A server with OpenAI's interface that answers as a test tells it to, and counts what it was asked."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Reply = Any  # an answer as JSON, or the status of a refusal


def say(text: str, finish: str = "stop", tokens: dict[str, float] | None = None) -> dict[str, Any]:
    """An answer; `tokens` are the log-probabilities of the first token, where they were asked for."""
    top = [{"token": token, "logprob": value, "bytes": None} for token, value in (tokens or {}).items()]
    content = [{"token": text, "logprob": 0.0, "bytes": None, "top_logprobs": top}]
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish,
                "logprobs": {"content": content} if tokens else None,
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


class FakeServer:
    """`reply` is called with the body of each request, and the number of times that this body came before."""

    def __init__(self, reply: Callable[[dict[str, Any], int], Reply]) -> None:
        self.reply, self.lock = reply, threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.answered: list[str] = []  # the last message of each request that got an answer
        self.keys: set[str | None] = set()
        self.error = "refused"  # the words of a refusal
        self.now = self.most = 0  # requests at the same time
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(fake) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake.lock:
                    fake.now += 1
                    fake.most = max(fake.most, fake.now)
                    before = sum(body == other for other in fake.bodies)
                    fake.bodies.append(body)
                    fake.keys.add(self.headers["Authorization"])
                found = fake.reply(body, before)
                with fake.lock:
                    fake.now -= 1
                    if not isinstance(found, int):
                        fake.answered.append(body["messages"][-1]["content"])
                status = found if isinstance(found, int) else 200
                data = json.dumps(
                    {"error": {"message": f"{fake.error}, status {found}"}} if isinstance(found, int) else found
                ).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if status in (429, 500):
                    self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
