"""A small convnet with all that a training has: validation, dropout, a schedule, penalties.

The picture of a report page in the README is of this program:

    lossledger run --name convnet examples/convnet.py
    lossledger report convnet -o convnet.html

One batch of the data is damaged on purpose. The page names it, by its rows, among the steps to look
at.
"""

import os

import keras
import numpy as np

EPOCHS = int(os.environ.get("EPOCHS", "12"))
STEPS = int(os.environ.get("STEPS", "170"))  # of an epoch; the last of them has 12 rows
VALIDATION, CLASSES, BATCH = 1000, 10, 32
ROWS = STEPS * BATCH - 20


def data() -> tuple[np.ndarray, np.ndarray]:
    """Noisy copies of ten patterns of 12 x 12; some labels are wrong, and 32 images too bright."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(CLASSES, 12, 12, 1))
    rows = ROWS + VALIDATION
    labels = rng.integers(0, CLASSES, rows)
    images = patterns[labels] * rng.uniform(0.3, 1.0, (rows, 1, 1, 1))
    images += rng.normal(scale=1.6, size=images.shape)
    images[2016:2048] *= 12
    labels = np.where(rng.random(rows) < 0.06, rng.integers(0, CLASSES, rows), labels)
    return images.astype("float32"), labels


def model() -> keras.Model:
    """Two convolutions and a hidden layer, with dropout and L2 penalties, under a cosine."""
    penalty = {"kernel_regularizer": keras.regularizers.L2(3e-4), "activation": "relu"}
    layers = [
        keras.Input((12, 12, 1)),
        keras.layers.Conv2D(16, 3, **penalty),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(32, 3, **penalty),
        keras.layers.Flatten(),
        keras.layers.Dropout(0.4),
        keras.layers.Dense(64, **penalty),
        keras.layers.Dropout(0.4),
        keras.layers.Dense(CLASSES),
    ]
    steps = EPOCHS * STEPS
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-4, int(steps * 0.85), alpha=0.02, warmup_target=3e-3, warmup_steps=int(steps * 0.15)
    )
    made = keras.Sequential(layers, name="convnet")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    made.compile(keras.optimizers.Adam(schedule), loss)
    return made


def main() -> None:
    """Trains without shuffling, so that rows of the page are rows of the data."""
    keras.utils.set_random_seed(1)
    images, labels = data()
    trained = model()
    trained.fit(
        images[:ROWS],
        labels[:ROWS],
        batch_size=BATCH,
        epochs=EPOCHS,
        shuffle=False,
        validation_data=(images[ROWS:], labels[ROWS:]),
        verbose=2,
    )
    loss = trained.evaluate(images[:ROWS], labels[:ROWS], verbose=0)
    print(f"evaluate on the training data: {loss:.4f}")


if __name__ == "__main__":
    main()
