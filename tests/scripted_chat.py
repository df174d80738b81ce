"""A server of chat completions that says what a Python function says, and fails as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Messages = list[dict[str, str]]


class ScriptedChat:
    """Inside `with`, a server on this machine; ``url`` is the ``base_url`` of a client.

    Parameters
    ----------
    answer
        Messages -> text; or a mapping from first tokens to log-probabilities, of which the likeliest is the text; or
        bytes, which are sent as they are (no JSON, say).
    fail, status
        The first so many requests are answered with this status.
    hang
        Seconds before each answer.
    echo
        Whether failures and all answers hold the request's headers, in their body and among their own headers.
    usage
        Whether answers say how many tokens they took: a word is one.

    Attributes
    ----------
    requests
        The body of every request, in the order in which they came.
    most_at_once
        How many were under way at the same time.
    """

    def __init__(
        self,
        answer: Callable[[Messages], str | Mapping[str, float] | bytes],
        *,
        fail: int = 0,
        status: int = 429,
        hang: float = 0.0,
        echo: bool = False,
        usage: bool = True,
    ) -> None:
        self.answer = answer
        self.fail = fail
        self.status = status
        self.hang = hang
        self.echo = echo
        self.usage = usage
        self.requests: list[dict[str, Any]] = []
        self.most_at_once = 0
        self._under_way = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def options(self, folder: Any, **more: Any) -> dict[str, Any]:
        """What a study file would write to ask this server."""
        return {"model": "scripted", "base_url": self.url, "cache": str(folder), "retries": 0, **more}

    def reply(self, body: dict[str, Any], headers: Mapping[str, str]) -> tuple[int, bytes]:
        with self._lock:
            self.requests.append(body)
            number = len(self.requests)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            time.sleep(self.hang)
            if number <= self.fail:
                shown = f" {dict(headers)}" if self.echo else ""
                return self.status, json.dumps({"error": {"message": f"refused{shown}"}}).encode()
            said = self.answer(body["messages"])
        finally:
            with self._lock:
                self._under_way -= 1
        if isinstance(said, bytes):
            return 200, said
        text = said if isinstance(said, str) else max(said, key=said.__getitem__)
        text += f" {dict(headers)}" if self.echo else ""
        choice: dict[str, Any] = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
        }
        if isinstance(said, Mapping) and body.get("logprobs"):
            ranked = sorted(said.items(), key=lambda each: -each[1])[: body["top_logprobs"]]
            told = [{"token": token, "logprob": value, "bytes": None} for token, value in ranked]
            choice["logprobs"] = {"content": [{**told[0], "top_logprobs": told}]}
        whole: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
        if self.usage:
            asked = sum(len(each["content"].split()) for each in body["messages"])
            counts = {"prompt_tokens": asked, "completion_tokens": len(text.split())}
            whole["usage"] = {**counts, "total_tokens": sum(counts.values())}
        return 200, json.dumps({**whole, "choices": [choice]}).encode()


def _handler(script: ScriptedChat) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = script.reply(body, dict(self.headers))
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("retry-after-ms", "1")
                if script.echo:
                    self.send_header("x-echo", self.headers.get("Authorization", ""))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                return  # the client has hung up

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    return Handler
