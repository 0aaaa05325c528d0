"""Train one epoch with `train_on_batch`, and look at each raw loss.

Nothing is averaged: the losses jump from batch to batch, because each is the loss of 32 other
rows (of 8 in the last batch). The averages that `fit` shows look calm only because they are
averages.

Run it:

```
python examples/train_on_batch_raw.py
lossledger run examples/train_on_batch_raw.py
```
"""

import keras
import numpy as np
from keras import layers

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

# The order of the first epoch of train_on_batch_epochs.py.
order = rng.permutation(len(x))
# The step is in range(), not a count of whole batches: the last batch is the 8 rows left over.
for number, start in enumerate(range(0, len(x), batch_size), start=1):
    batch = order[start : start + batch_size]
    # Before Keras 3.15 the returned loss is an average since the last reset, no raw loss.
    model.reset_metrics()
    loss = model.train_on_batch(x[batch], y[batch])
    print(f"batch {number}: {len(batch)} rows, loss {loss:.6f}")
