"""Train with `train_on_batch`: collect the raw losses, average them, and begin anew each epoch.

`train_on_batch` returns the loss of the batch that it was given, and knows of no epochs: shuffling,
averaging and beginning anew are left to the loop.

Run it:

```
python examples/train_on_batch_epochs.py
python examples/train_on_batch_epochs.py --no-shuffle
python examples/train_on_batch_epochs.py --drop-remainder
lossledger run examples/train_on_batch_epochs.py
```

The two options make two usual mistakes, to see what they cost.
"""

import argparse

import keras
import numpy as np
from keras import layers

parser = argparse.ArgumentParser()
parser.add_argument("--no-shuffle", action="store_true", help="the same order in every epoch")
parser.add_argument("--drop-remainder", action="store_true", help="only batches of 32 rows")
options = parser.parse_args()

epochs = 10
batch_size = 32

# Made once, from a fixed seed: losses on data drawn anew in each program can't be compared.
rng = np.random.default_rng(0)
x = rng.random((1000, 10), dtype="float32")
y = rng.integers(0, 2, (1000, 1)).astype("float32")

keras.utils.set_random_seed(1)
model = keras.Sequential(
    [
        keras.Input((10,)),
        layers.Dense(16, activation="relu"),
        layers.Dense(1, activation="sigmoid"),
    ]
)
# Without compile() there is no optimizer and no loss: train_on_batch ends with an error.
model.compile(
    optimizer=keras.optimizers.Adam(learning_rate=1e-3),
    loss=keras.losses.BinaryCrossentropy(),
)

# range(len(x) // batch_size) stops after 31 batches: 8 rows of each epoch train nothing.
rows = len(x) - len(x) % batch_size if options.drop_remainder else len(x)

for epoch in range(epochs):
    # `fit` shuffles unless told not to; a loop that forgets it trains in another order.
    order = np.arange(len(x)) if options.no_shuffle else rng.permutation(len(x))
    losses = []
    for start in range(0, rows, batch_size):
        batch = order[start : start + batch_size]
        # Before Keras 3.15 the returned loss is an average since the last reset, no raw loss.
        model.reset_metrics()
        losses.append(model.train_on_batch(x[batch], y[batch]))
    # A plain mean: the last batch's 8 rows count as much as another batch's 32. What `fit`
    # reports is np.average(losses, weights=the rows of each batch).
    print(f"epoch {epoch + 1}: {len(losses)} batches, average loss {np.mean(losses):.6f}")
