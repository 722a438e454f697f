"""The embedded model's process: llama.cpp's own OpenAI-compatible server around one GGUF file.

The law: it serves whoever has the key it was given, on loopback only, and ends when its stdin does.
`local.py` runs it as a script; it imports nothing of ours.

One JSON line comes in: `{"model": path, "alias": name, "api_key": key, "threads": count}`. One goes
out when the model is loaded: the address, such as `http://127.0.0.1:40123`.
"""

from __future__ import annotations

import json
import os
import sys

import xllamacpp

# Requests that are generated at the same time; on the usual two cores more only makes all slower.
SLOTS = 4
# Tokens of prompt and answer together; the model was trained for up to 8192, but each slot's share
# is taken from memory at the start: 4 slots of 2048 are 180 MiB.
SLOT_CONTEXT = 2048
# A model this small rambles: without an end of our own it often talks until its context is full,
# which holds a slot for 20 s. A request may ask for more or less with max_tokens.
ANSWER_TOKENS = 512
# Its default takes up to 8 GiB of memory for prompts that may come again.
PROMPT_CACHE_MIB = 64
# Below the server's own process: the event loop gets a core whenever it wants one, also when
# the model keeps all of them busy.
NICE = 5


def parameters(order: dict[str, str | int]) -> xllamacpp.CommonParams:
    """What llama.cpp is to do for this order; see the module's docstring for its keys."""
    params = xllamacpp.CommonParams()
    params.model.path = order["model"]
    params.model_alias = {order["alias"]}
    params.api_keys = [order["api_key"]]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_CONTEXT
    params.n_predict = ANSWER_TOKENS
    params.cpuparams.n_threads = order["threads"]
    params.cpuparams_batch.n_threads = order["threads"]
    params.cache_ram_mib = PROMPT_CACHE_MIB
    params.endpoint_slots = False
    params.ui = False
    params.verbosity = 1  # errors only: the log does not grow
    return params


def serve() -> None:
    """Load, report the address, and serve until stdin ends."""
    # llama.cpp may print; the report must stay the only thing on this pipe.
    report = os.dup(1)
    os.dup2(2, 1)
    os.nice(NICE)
    server = xllamacpp.Server(parameters(json.loads(sys.stdin.readline())))
    os.write(report, f"{server.listening_address}\n".encode())
    os.close(report)
    sys.stdin.read()
    # Not a normal exit: it would wait for answers that are still being generated.
    os._exit(0)


if __name__ == "__main__":
    serve()
