"""The network of the parts on PyTorch, its raw losses, and how its ways are compared."""

import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from common import Found, Way, data, measure, parts, say

torch.set_num_threads(1)  # the network is small: more threads only wait for each other
X, Y = (torch.from_numpy(array) for array in data())
LOSS = torch.nn.functional.binary_cross_entropy_with_logits
RATE = 1e-3


def network():
    """10 features, 16, 1; always the same first weights."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(10, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))


def truth() -> np.ndarray:
    """The raw losses of two epochs, by a plain loop."""
    net = network()
    steps, losses = torch.optim.Adam(net.parameters(), lr=RATE), []
    for _ in range(2):
        for part in parts():
            loss = LOSS(net(X[part]), Y[part])
            steps.zero_grad()
            loss.backward()
            steps.step()
            losses.append(loss.item())
    return np.array(losses)


def compare(title: str, ways: Callable[[Path], Sequence[Way]]) -> None:
    """Measures a library's ways, made for a folder of their own, and says what was found.

    The command line says how many rounds, and of how many epochs.
    """
    warnings.filterwarnings("ignore")
    found = Found(title).with_versions("torch")
    with tempfile.TemporaryDirectory() as folder:
        measure(found, ways(Path(folder)), truth(), int(sys.argv[1]), int(sys.argv[2]))
    say(found)
