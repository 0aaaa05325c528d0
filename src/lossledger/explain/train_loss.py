"""What a `train_loss` of transformers says beside the means that were logged on the way to it.

`Trainer.train` divides the losses that it has seen since it began, or was resumed: up to
transformers 5.18 by all steps, since 5.19 by those that it has seen. The first mean after a resume
is over the steps since then alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from lossledger.explain.kind import rounded

_SURE = 0.05
"""How near a whole number the step of a resume has to be known."""


@dataclass(frozen=True)
class Windows:
    """Means that were logged: each with its last step, and how many steps it is over."""

    steps: Sequence[int]
    sizes: Sequence[int]
    values: Sequence[float]

    def told(self, end: int, value: float) -> Iterator[str]:
        """What a mean of all steps up to `end` says."""
        sums = [mean * size for mean, size in zip(self.values, self.sizes, strict=True)]
        decimals = rounded(np.array(self.values))
        slack = (0.5 * 10.0**-decimals if decimals is not None else 0.0) + 1e-6 * abs(value)
        last = self.steps[-1]
        if last < end:
            rest = (value * end - sum(sums)) / (end - last)
            yield (
                f"train_loss counts steps {last + 1:,} to {end:,}, too: if the training wasn't "
                f"resumed, their mean is {rest:.6g}"
            )
        elif last == end and abs(sum(sums) / end - value) <= slack:
            yield f"train_loss is the mean of all logged windows, within {slack:.0e}"
        elif last == end:
            yield from self._resumed(sums, value, slack)

    def _resumed(self, sums: Sequence[float], value: float, slack: float) -> Iterator[str]:
        end = self.steps[-1]
        for place, after in enumerate(accumulate(reversed(sums[1:]), initial=0.0), 1):
            mean, last, size = self.values[-place], self.steps[-place], self.sizes[-place]
            since = _whole(value * end - after, mean, slack * end, size)
            if since:
                yield (
                    f"train_loss {value:.6g} is what a training gives that was resumed at step "
                    f"{last - since:,}: the losses since then, divided by all {end:,} steps, as up "
                    f"to transformers 5.18; their mean is {value * end / (end - last + since):.6g}"
                )
                return
            told = end - last
            since = _whole(value * told - after, mean - value, slack * (told + size), size)
            if since:
                yield (
                    f"train_loss {value:.6g} is the mean of the losses since step "
                    f"{last - since:,}: a training that was resumed there, as from transformers "
                    "5.19 on"
                )
                return
        mean = sum(sums) / end
        yield f"train_loss {value:.6g} is not the mean of the logged windows, {mean:.6g}"


def _whole(total: float, each: float, slack: float, most: int) -> int:
    """How many times `each` is `total`, if that is a whole number up to `most`; else 0.

    Where both are nothing it could be any, and it is all of them.
    """
    if abs(each) * most <= slack:
        return most if abs(total) <= slack else 0
    if slack > _SURE * abs(each):
        return 0
    count = round(total / each)
    return count if 1 <= count <= most and abs(total - count * each) <= slack else 0
