"""Files of other tools, as their tests write and read them."""

from pathlib import Path

import numpy as np

from lossledger.explain import Explained, Series

FILES = Path(__file__).with_name("files")

CSV_LOG = "epoch,loss,mae,val_loss,val_mae\n0,0.75,0.5,NA,NA\n1,0.5,0.25,NA,NA\n2,nan,inf,NA,NA\n"


def series_of(explained: Explained, name: str) -> Series:
    return next(each for each in explained.series if each.name == name)


def statistics(explained: Explained) -> dict[str, str | None]:
    return {each.name: each.statistic for each in explained.series}


def trainer_state(losses: list[float], stride: int, resumed: int = 0) -> dict:
    """As Trainer writes it: `train_loss` is over all steps, its losses since the resume."""
    steps = stride * np.arange(1, len(losses) + 1)
    log = [{"loss": x, "step": int(s), "epoch": 0.1} for x, s in zip(losses, steps, strict=True)]
    log.append({"eval_loss": 0.5, "step": int(steps[-1]), "epoch": 1.0})
    train = sum(losses[resumed:]) * stride / steps[-1]
    log.append({"train_loss": float(train), "step": int(steps[-1]), "epoch": 1.0})
    about = {"best_model_checkpoint": "x" * 5000, "global_step": int(steps[-1])}
    return {**about, "log_history": log}
