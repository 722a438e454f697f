"""What a relay is compared with: the upstream itself, other gateways, and our server.

The law: all lead to the same upstream; a peer is one worker that logs no requests and has no
database; each runs alone, started for its turn and gone after it. What cannot be started says why.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.installed import (
    LITELLM,
    PORTKEY,
    ROOT,
    nginx_program,
    nginx_version,
    peer_version,
    portkey_version,
)
from benchmarks.load import Target, chat_body, post, question
from benchmarks.processes import Running, free_port, uses_of
from benchmarks.rig import MODEL, Rig, generate
from tests.nginx import configuration

CHAT = "/v1/chat/completions"

# More than the streams of any case, so that no mission waits for its turn.
ROOM = 128

# The ends of an answer that is not streamed, as each writes it; an error does not end so.
UPSTREAM_END = b'"finish_reason":"stop"}]}'
LITELLM_END = b'"total_tokens":110}}'
OPENAI_END = b'"prompt_tokens_details":null}}'
OUR_END = b'"errorMessage":""}'

# The keys' check off, as its manual offers for local use: it makes LiteLLM cheaper, not dearer.
LITELLM_UNLOCKED = {"dangerously_permit_weak_or_unset_master_key": True}
LITELLM_ENVIRON = {
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would ask the network for prices
    # After 100 equal chunks it takes a model for broken; ours says the same for ever.
    "REPEATED_STREAMING_CHUNK_LIMIT": "1000000",
}

SITE = """\
keepalive_requests 1000000;  # by default it closes after 1000
  upstream bench {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://bench;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}"""


@dataclass(frozen=True, slots=True)
class Subject:
    """One that runs: its requests, and seconds of processor time, its children's apart."""

    name: str
    streamed: Callable[[int, int], Target]  # of so many tokens, so many milliseconds apart
    whole: Target
    cpu: Callable[[], tuple[float, float]]


Start = Callable[[Rig], AbstractContextManager[Subject]]


@contextmanager
def direct(rig: Rig) -> Iterator[Subject]:
    """The upstream, which runs already."""
    yield _gateway("upstream, direct", rig.upstream, UPSTREAM_END)


@contextmanager
def nginx(rig: Rig) -> Iterator[Subject]:
    """`proxy_pass`, unbuffered, connections to the upstream kept."""
    program, folder, port = nginx_program(), _folder(rig), free_port()
    config = folder / "nginx.conf"
    site = SITE.format(port=port, upstream=rig.upstream.port)
    config.write_text(configuration(folder, site))
    argv = [program, "-e", "stderr", "-p", str(folder), "-c", str(config)]
    with Running(argv, port, folder / "log") as running:
        yield _gateway(f"nginx {nginx_version()}", running, UPSTREAM_END)


@contextmanager
def litellm(rig: Rig) -> Iterator[Subject]:
    """LiteLLM's proxy, one worker, no database, no telemetry, no key."""
    name = f"LiteLLM {peer_version(LITELLM, 'litellm')}"
    folder, port = _folder(rig), free_port()
    to = {"model": "openai/bench", "api_base": rig.base_url, "api_key": "none"}
    models = [{"model_name": "bench", "litellm_params": to}]
    config = folder / "litellm.yaml"  # JSON is YAML
    config.write_text(json.dumps({"model_list": models, "general_settings": LITELLM_UNLOCKED}))
    argv = [str(LITELLM / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    with Running(argv, port, folder / "log", environ=LITELLM_ENVIRON, folder=folder) as running:
        yield _gateway(name, running, LITELLM_END)


@contextmanager
def portkey(rig: Rig) -> Iterator[Subject]:
    """Portkey's gateway on Node, without its page of logs."""
    name, program = f"Portkey {portkey_version()}", PORTKEY / "build" / "start-server.js"
    folder, port = _folder(rig), free_port()
    argv = ["node", str(program), f"--port={port}", "--headless"]
    headers = {
        "Authorization": "Bearer none",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": rig.base_url,
    }
    environ = {"NODE_ENV": "production"}
    with Running(argv, port, folder / "log", environ=environ) as running:
        yield _gateway(name, running, UPSTREAM_END, **headers)


@contextmanager
def plain(rig: Rig) -> Iterator[Subject]:
    """`benchmarks/plain.py`."""
    folder, port = _folder(rig), free_port()
    argv = [sys.executable, "-m", "benchmarks.plain", str(port), rig.base_url]
    with Running(argv, port, folder / "log", folder=ROOT) as running:
        yield _gateway(f"Tornado + openai {version('openai')}", running, OPENAI_END)


@contextmanager
def raw(rig: Rig) -> Iterator[Subject]:
    """`benchmarks/raw_relay.py`."""
    folder, port = _folder(rig), free_port()
    argv = [sys.executable, "-m", "benchmarks.raw_relay", str(port), rig.base_url]
    with Running(argv, port, folder / "log", folder=ROOT) as running:
        yield _gateway("raw Tornado relay, no log", running, UPSTREAM_END)


@contextmanager
def vision(rig: Rig) -> Iterator[Subject]:
    """Our server, its log in the Valkey that it starts."""
    with rig.server(f"--room={ROOM}") as server:

        def cpu() -> tuple[float, float]:
            own, children = uses_of(server.pid)
            return own.cpu, children.cpu

        messages = [{"role": "user", "content": question(1, 0)}]
        body = {"model": MODEL, "params": {"messages": messages}}
        path, key = "/api/completion/single-prompt-request", "Vision chat"
        whole = post(server.port, path, body, OUR_END, Authorization=key)
        yield Subject("Vision", lambda tokens, gap: generate(server, tokens, gap), whole, cpu)


PEERS: dict[str, Start] = {
    "nginx": nginx,
    "LiteLLM": litellm,
    "Portkey": portkey,
    "Tornado + openai": plain,
    "raw Tornado relay": raw,
}


def _gateway(name: str, running: Running, end: bytes, **headers: str) -> Subject:
    """One that speaks as the upstream does; its workers count as itself."""

    def streamed(tokens: int, gap: int) -> Target:
        return post(running.port, CHAT, chat_body(tokens, gap), b"[DONE]", **headers)

    message = {"role": "user", "content": question(1, 0)}
    whole = post(running.port, CHAT, {"model": "bench", "messages": [message]}, end, **headers)
    return Subject(name, streamed, whole, lambda: (running.use().cpu, 0.0))


def _folder(rig: Rig) -> Path:
    return Path(tempfile.mkdtemp(dir=rig.folder))
