"""What tools report under the name "loss": one row a tool, version range and place.

A table, not code. Each row says which statistic (`lossledger.statistics`) of the training
entries a number is, with its parameters, and where the tool's own public code or discussion says
so. Sources are paths, pull requests and issues of the tool's repository.

Places:

| place | what is meant |
| --- | --- |
| `history` | the number kept for an epoch: Keras's History, `loss_epoch`, a log history |
| `batch_logs` | what a callback or a logger is given after a batch |
| `progress_bar` | what the bar shows after a batch; its last line stands at the epoch's end |
| `returned` | what a call that trains one batch returns |
| `evaluate` | the loss of fixed weights, in inference mode |
| `training` | the one number kept for a whole training |
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lossledger.errors import LossLedgerError

Place = Literal["history", "batch_logs", "progress_bar", "returned", "evaluate", "training"]
WeightKind = Literal["rows", "elements", "sample_weight", "one"]


@dataclass(frozen=True)
class Convention:
    """One row of the table.

    Args:
        tool: Its name, as in `TOOLS`.
        since: First version, included.
        until: First later version that differs; `None` while there is none.
        place: Where the number is met.
        statistic: A name in `lossledger.statistics.STATISTICS`, or `evaluate`.
        weight_kind: What one entry weighs in the mean.
        note: What else to know.
        source: Public file, pull request or issue of the tool.
        parameters: The statistic's, where they are not its defaults.
    """

    tool: str
    since: str
    until: str | None
    place: Place
    statistic: str
    weight_kind: WeightKind
    note: str
    source: str
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)


_PLAIN = "every batch weighs the same, whatever its rows"
_ROWS = "rows of the first input leaf; a custom train_step may weigh otherwise"
_UNRESET = "reset only by fit and evaluate, when they begin: an earlier call's batches count too"
_COUNTED = (
    "the bar averages the running means it is given; the epoch's mean is counted in once more "
    "at the end; verbose=2 prints the epoch's mean"
)
_REPLACED = (
    "the bar averages the running means it is given; its last line is replaced by the epoch's mean"
)
_ROWS_OR_STEPS = "rows where fit is given arrays; steps (weight one) where it is given a dataset"

# A table reads by rows.
# fmt: off
CONVENTIONS: tuple[Convention, ...] = (
    # Keras 3, all backends.
    Convention("keras", "3.0", "3.2", "history", "epoch_mean", "one",
               _PLAIN, "keras-team/keras#19363"),
    Convention("keras", "3.2", None, "history", "epoch_mean", "rows",
               _ROWS, "keras-team/keras#19363"),
    Convention("keras", "3.0", "3.2", "batch_logs", "running_mean", "one",
               _PLAIN, "keras-team/keras#19363"),
    Convention("keras", "3.2", None, "batch_logs", "running_mean", "rows",
               _ROWS, "keras-team/keras#19363"),
    Convention("keras", "3.0", "3.2", "progress_bar", "progress_bar", "one",
               _COUNTED,
               "keras/src/utils/progbar.py at v3.1.1; keras-team/keras#21331 changed it",
               {"finalize": "counted"}),
    Convention("keras", "3.2", "3.11", "progress_bar", "progress_bar", "rows",
               _COUNTED,
               "keras/src/utils/progbar.py at v3.10.0; keras-team/keras#21331 changed it",
               {"finalize": "counted"}),
    Convention("keras", "3.11", "3.15", "progress_bar", "progress_bar", "rows",
               _REPLACED,
               "keras-team/keras#21331, keras-team/keras#21422",
               {"finalize": "replaced"}),
    Convention("keras", "3.15", None, "progress_bar", "running_mean", "rows",
               "as in the batch logs: the bar averages nothing", "keras-team/keras#23030"),
    Convention("keras", "3.0", "3.2", "returned", "cumulative_mean", "one",
               _UNRESET, "keras-team/keras#22617"),
    Convention("keras", "3.2", "3.15", "returned", "cumulative_mean", "rows",
               _UNRESET, "keras-team/keras#22617"),
    Convention("keras", "3.15", None, "returned", "raw", "rows",
               "train_on_batch and test_on_batch reset the metrics first",
               "keras-team/keras#22617"),
    Convention("keras", "3.0", "3.2", "evaluate", "evaluate", "one",
               _PLAIN, "keras-team/keras#19363"),
    Convention("keras", "3.2", None, "evaluate", "evaluate", "rows",
               _ROWS, "keras-team/keras#19363"),
    # tf.keras of TensorFlow 2 up to 2.15, and the package tf_keras, which goes on with it.
    Convention("tf.keras", "2.0", "2.2", "history", "epoch_mean", "rows",
               _ROWS_OR_STEPS,
               "tensorflow/python/keras/engine/training_v2.py at v2.1.0 (run_one_epoch)"),
    Convention("tf.keras", "2.2", "3.0", "history", "epoch_mean", "rows",
               "rows of the batch",
               "tensorflow/python/keras/engine/compile_utils.py at v2.2.0 (LossesContainer)"),
    Convention("tf.keras", "2.0", "2.2", "batch_logs", "raw", "rows",
               "the loss alone is raw; metrics are running means", "tensorflow/tensorflow#36400"),
    Convention("tf.keras", "2.2", "3.0", "batch_logs", "running_mean", "rows",
               "changed without a release note",
               "tensorflow/tensorflow#58098, keras-team/keras#17167"),
    Convention("tf.keras", "2.0", "2.2", "progress_bar", "running_mean", "rows",
               _ROWS_OR_STEPS,
               "tensorflow/python/keras/utils/generic_utils.py at v2.1.0 (Progbar)"),
    Convention("tf.keras", "2.2", "3.0", "progress_bar", "running_mean", "rows",
               "as in the batch logs: the loss is among the bar's stateful metrics",
               "tensorflow/python/keras/callbacks.py at v2.3.0 (ProgbarLogger)"),
    Convention("tf.keras", "2.0", "2.2", "returned", "raw", "rows",
               "whatever reset_metrics is: it concerns the metrics only",
               "tensorflow/python/keras/engine/training.py at v2.1.0 (train_on_batch)"),
    Convention("tf.keras", "2.2", "3.0", "returned", "raw", "rows",
               "with reset_metrics=True, the default; with False it is cumulative_mean",
               "tensorflow/python/keras/engine/training.py at v2.2.0 (train_on_batch)"),
    Convention("tf.keras", "2.0", "2.2", "evaluate", "evaluate", "rows",
               _ROWS_OR_STEPS,
               "tensorflow/python/keras/engine/training_v2.py at v2.1.0 (run_one_epoch)"),
    Convention("tf.keras", "2.2", "3.0", "evaluate", "evaluate", "rows",
               "rows of the batch",
               "tensorflow/python/keras/engine/compile_utils.py at v2.2.0 (LossesContainer)"),
    # PyTorch Lightning: what self.log("loss", on_step=True, on_epoch=True) makes of it.
    Convention("lightning", "1.0", None, "batch_logs", "raw", "rows",
               "loss_step, every log_every_n_steps steps (50 unless set)",
               "src/lightning/pytorch/trainer/connectors/logger_connector/result.py "
               "(_ResultMetric)"),
    Convention("lightning", "1.0", None, "history", "epoch_mean", "rows",
               "loss_epoch; rows are inferred from the batch unless log is told batch_size",
               "src/lightning/pytorch/trainer/connectors/logger_connector/result.py "
               "(_ResultMetric)"),
    Convention("lightning", "1.0", "2.0", "progress_bar", "window_mean", "one",
               "the bar's own loss: the last 20 batches",
               "Lightning-AI/pytorch-lightning#16192",
               {"n": 20}),
    Convention("lightning", "2.0", None, "progress_bar", "raw", "rows",
               "only with log(prog_bar=True), then loss_step",
               "Lightning-AI/pytorch-lightning#16192"),
    Convention("lightning", "1.0", None, "evaluate", "evaluate", "rows",
               "what validation_step logs: the epoch's mean, rows inferred from the batch",
               "src/lightning/pytorch/core/module.py (LightningModule.log)"),
    # Hugging Face Trainer.
    Convention("transformers", "4.0", "4.46", "history", "window_mean", "one",
               "every logging_steps optimizer steps, n = logging_steps; micro-batches weigh the "
               "same",
               "src/transformers/trainer.py at v4.45.0 (_maybe_log_save_evaluate)",
               {"n": 500}),
    Convention("transformers", "4.46", None, "history", "window_mean", "one",
               "every logging_steps optimizer steps, n = logging_steps; within an optimizer step "
               "the micro-batches weigh by their tokens, if the model takes num_items_in_batch; "
               "before 4.48 the loss grew with gradient_accumulation_steps where it doesn't",
               "huggingface/transformers#34191, huggingface/transformers#35207",
               {"n": 500}),
    Convention("transformers", "4.0", None, "evaluate", "evaluate", "rows",
               "each batch's loss repeated for its rows, then averaged",
               "src/transformers/trainer.py (evaluation_loop)"),
    Convention("transformers", "4.0", "5.19", "training", "cumulative_mean", "one",
               "train_loss: its last value; after a resume the losses since then are divided by "
               "all steps, those before it included",
               "src/transformers/trainer.py at v5.18.0 (_finalize_training)"),
    Convention("transformers", "5.19", None, "training", "cumulative_mean", "one",
               "train_loss: its last value; after a resume the mean of the losses since then",
               "src/transformers/trainer.py at v5.19.0 (_finalize_training)"),
    # fastai.
    Convention("fastai", "2.0", None, "history", "ema", "one",
               "train_loss is the smoothed loss at the epoch's end",
               "fastai/learner.py (Recorder)",
               {"beta": 0.98, "debias": True, "reset": False}),
    Convention("fastai", "2.0", None, "batch_logs", "ema", "one",
               "recorder.losses, which plot_loss draws",
               "fastai/learner.py (AvgSmoothLoss)",
               {"beta": 0.98, "debias": True, "reset": False}),
    Convention("fastai", "2.0", None, "progress_bar", "ema", "one",
               "the bar's comment is the smoothed loss",
               "fastai/callback/progress.py",
               {"beta": 0.98, "debias": True, "reset": False}),
    Convention("fastai", "2.0", None, "evaluate", "evaluate", "rows",
               "valid_loss", "fastai/learner.py (AvgLoss)"),
    # PyTorch Ignite.
    Convention("ignite", "0.3", None, "batch_logs", "raw", "rows",
               "engine.state.output, if the update function returns the loss",
               "ignite/engine/engine.py"),
    Convention("ignite", "0.3", None, "progress_bar", "ema", "one",
               "with RunningAverage attached, the user's choice; alpha 0.98, anew each epoch",
               "ignite/metrics/running_average.py",
               {"beta": 0.98, "debias": False, "reset": True}),
    # skorch.
    Convention("skorch", "0.9", None, "history", "epoch_mean", "rows",
               "train_loss, weighted by train_batch_size",
               "skorch/callbacks/scoring.py (PassthroughScoring)"),
    Convention("skorch", "0.9", None, "batch_logs", "raw", "rows",
               "history[:, 'batches', :, 'train_loss']", "docs/user/history.rst"),
)
# fmt: on
"""The table."""

TOOLS = tuple(dict.fromkeys(row.tool for row in CONVENTIONS))
"""Names of the tools in the table."""


def of(tool: str, version: str, place: str) -> Convention:
    """What a tool, in a version, reports as the loss in a place.

    Args:
        tool: One of `TOOLS`.
        version: Such as `"3.15.1"`. Pre-releases and builds (`"3.15.0rc1"`, `"2.5.0+cpu"`) count
            as the release that they lead to or stand on.
        place: `history`, `batch_logs`, `progress_bar`, `returned`, `evaluate` or `training`, as
            far as the tool has it.

    Returns:
        The row: a `Convention` with `statistic`, `parameters`, `weight_kind`, `note` and `source`.

    Raises:
        LossLedgerError: Unknown tool or place, a version that is none, or no row for them.

    Example:

    ```python
    from lossledger.conventions import of

    of("keras", "3.14.1", "returned").statistic  # "cumulative_mean"
    of("keras", "3.15.0", "returned").statistic  # "raw"
    ```
    """
    if tool not in TOOLS:
        raise _unknown("tool", tool, f"Choose one of {', '.join(TOOLS)}.")
    number = parse_version(version)
    places = [row for row in CONVENTIONS if row.tool == tool and row.place == place]
    if not places:
        known = dict.fromkeys(row.place for row in CONVENTIONS if row.tool == tool)
        raise _unknown(f"place of {tool}", place, f"Choose one of {', '.join(known)}.")
    for row in places:
        if parse_version(row.since) <= number and (
            row.until is None or number < parse_version(row.until)
        ):
            return row
    ranges = ", ".join(f"{row.since} to {row.until or 'today'}" for row in places)
    raise _unknown(f"version of {tool}", version, f"Known for {place}: {ranges}.")


def parse_version(version: str) -> tuple[int, int, int]:
    """Major, minor and patch of a version; what follows them is ignored.

    Raises:
        LossLedgerError: It doesn't begin with a number.
    """
    match = re.match(r"v?(\d+)(?:\.(\d+))?(?:\.(\d+))?", version)
    if match is None:
        raise _unknown("version", version, 'Pass one such as "3.15.1".')
    major, minor, patch = (int(part or 0) for part in match.groups())
    return major, minor, patch


def _unknown(what: str, received: str, hint: str) -> LossLedgerError:
    return LossLedgerError(
        f"Unknown {what}. Received: {received!r}. {hint}", slug="unknown-convention", exit_code=2
    )
