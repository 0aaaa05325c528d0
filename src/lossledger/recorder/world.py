"""The processes that train together, and how they agree on one run folder.

Each engine keeps a small store of keys and values for its processes, at their coordinator. The
first process to ask for a key writes what it proposes, and all others get that: nobody waits, no
clock is asked, and no collective operation is added to the training. Libraries are looked up, never
imported: what is not imported trains nothing.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

WAIT_MS = 30_000
"""How long a store may take to answer, in milliseconds."""


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Args:
        rank: Its number, from 0.
        size: How many there are.
        agree: Takes a key and a proposal; returns what was proposed first under the key.
    """

    rank: int
    size: int
    agree: Callable[[str, str], str]


def find_world(environment: Mapping[str, str] = os.environ) -> World | None:
    """The processes that this one trains with; `None` where it trains alone.

    In this order: what `LOSSLEDGER_RUN` and `LOSSLEDGER_WORKER` say, `torch.distributed`,
    `jax.distributed`, TensorFlow's cluster, torchrun's own store.
    """
    finders = (_said, _torch, _jax, _tensorflow, _torchrun)
    worlds = (find(environment) for find in finders)
    return next((world for world in worlds if world is not None and world.size > 1), None)


def _said(environment: Mapping[str, str]) -> World | None:
    """`LOSSLEDGER_RUN` is the folder's name, `LOSSLEDGER_WORKER` is RANK/SIZE."""
    name, worker = environment.get("LOSSLEDGER_RUN"), environment.get("LOSSLEDGER_WORKER", "")
    rank, _, size = worker.partition("/")
    if not name or not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        return None
    return World(int(rank), int(size), lambda key, proposal: name)


def _torch(environment: Mapping[str, str]) -> World | None:
    del environment
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    store = distributed.distributed_c10d._get_default_store()
    return World(distributed.get_rank(), distributed.get_world_size(), _first_in(store))


def _torchrun(environment: Mapping[str, str]) -> World | None:
    """Processes that torchrun started and that form no group: its agent has a store for them."""
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    store = distributed.TCPStore(address, port, None, False)
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    first = _first_in(store)
    return World(rank, size, lambda key, proposal: first(f"{key}/{attempt}", proposal))


def _first_in(store: Any) -> Callable[[str, str], str]:
    return lambda key, proposal: store.compare_set(key, "", proposal).decode()


def _jax(environment: Mapping[str, str]) -> World | None:
    del environment
    module: Any = sys.modules.get("jax._src.distributed")
    state = getattr(module, "global_state", None)
    client = getattr(state, "client", None)
    if state is None or client is None:
        return None

    def agree(key: str, proposal: str) -> str:
        with suppress(Exception):  # another was first
            client.key_value_set(key, proposal)
        return str(client.blocking_key_value_get(key, WAIT_MS))

    return World(state.process_id, state.num_processes, agree)


def _tensorflow(environment: Mapping[str, str]) -> World | None:
    """TF_CONFIG says who is who; the store is there once a strategy has made the cluster."""
    eager: Any = sys.modules.get("tensorflow.python.eager.context")
    place = _place(environment.get("TF_CONFIG", ""))
    if eager is None or place is None or eager.context().coordination_service is None:
        return None
    context = eager.context()

    def agree(key: str, proposal: str) -> str:
        with suppress(Exception):  # another was first
            context.set_config_key_value(key, proposal)
        return str(context.get_config_key_value(key))

    return World(*place, agree)


def _place(config: str) -> tuple[int, int] | None:
    """Rank and size from TF_CONFIG: the chief, then the workers; `None` for any other task."""
    try:
        found = json.loads(config)
        cluster, task = found["cluster"], found["task"]
        trains = [
            (kind, n) for kind in ("chief", "worker") for n in range(len(cluster.get(kind, ())))
        ]
        return trains.index((task["type"], int(task["index"]))), len(trains)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
