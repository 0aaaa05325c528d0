"""Event files by TensorFlow's own writers, old and new, read without it."""

from pathlib import Path

import numpy as np
import pytest

from lossledger.explain import read

from .conftest import BACKEND

if BACKEND != "tensorflow":
    pytest.skip("the writers are TensorFlow's", allow_module_level=True)

import tensorflow as tf

LOSSES = np.float32([0.6931472, 1e-30, 3.4e38, np.nan, -np.inf])


def write(folder: Path, dtype: tf.DType) -> None:
    """As `tf.summary.scalar` does, which takes TensorBoard: a tensor with the scalars' plugin."""
    about = tf.compat.v1.SummaryMetadata()
    about.plugin_data.plugin_name = "scalars"
    with tf.summary.create_file_writer(str(folder)).as_default():
        for step, loss in enumerate(LOSSES):
            tensor = tf.cast(loss, dtype)
            tf.summary.write("epoch_loss", tensor, step=step * 10**12, metadata=about)
            tf.summary.write("grid", tf.ones((2, 2)), step=step)
            tf.summary.write("text", tf.constant("loss"), step=step)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_tensors(tmp_path: Path, dtype: str) -> None:
    write(tmp_path, tf.as_dtype(dtype))
    found = read(next(tmp_path.glob("events*")))
    (series,) = found.series
    wanted = tf.cast(tf.cast(LOSSES, dtype), tf.float64).numpy()
    np.testing.assert_array_equal(series.values, wanted)
    np.testing.assert_array_equal(series.steps, np.arange(5) * 10**12)
    assert any(note.startswith("10 values are no scalars") for note in found.notes)


def test_plain_values_and_integers(tmp_path: Path) -> None:
    path = tmp_path / "events"
    v1 = tf.compat.v1
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(v1.Event(file_version="brain.Event:2").SerializeToString())
        for step, loss in enumerate(LOSSES):
            plain = v1.Summary.Value(tag="batch_loss", simple_value=loss)
            whole = v1.Summary.Value(tag="count", tensor=tf.make_tensor_proto(-step))
            zero = v1.Summary.Value(tag="zero", tensor=tf.make_tensor_proto(0.0))
            summary = v1.Summary(value=[plain, whole, zero])
            writer.write(v1.Event(step=step, summary=summary).SerializeToString())
    found = {series.name: series for series in read(path).series}
    np.testing.assert_array_equal(found["batch_loss"].values, LOSSES.astype(np.float64))
    np.testing.assert_array_equal(found["count"].values, -np.arange(5.0))
    np.testing.assert_array_equal(found["zero"].values, np.zeros(5))


def test_twenty_thousand_events_and_a_large_graph(tmp_path: Path) -> None:
    path = tmp_path / "events"
    v1 = tf.compat.v1
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(v1.Event(file_version="brain.Event:2").SerializeToString())
        value = v1.Summary(value=[v1.Summary.Value(tag="loss", simple_value=0.5)])
        for step in range(20_000):
            writer.write(v1.Event(step=step, summary=value).SerializeToString())
        writer.write(v1.Event(graph_def=b"x" * 3_000_000).SerializeToString())
    (series,) = read(path).series
    np.testing.assert_array_equal(series.steps, np.arange(20_000))
