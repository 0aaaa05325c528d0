"""Train with `fit`: what it reports for an epoch is an average over that epoch's batches.

`fit` averages the losses of the 32 batches of an epoch, each weighted by its rows, and starts
anew in the next epoch. While it averages, the weights move: the average is not the loss of the
weights that the epoch ends with. `evaluate` measures that one.

Run it:

```
python examples/fit_average.py
lossledger run examples/fit_average.py
```

Every program of this folder trains the same model from the same initial weights on the same data.
"""

import keras
import numpy as np
from keras import layers

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
model.compile(
    optimizer=keras.optimizers.Adam(learning_rate=1e-3),
    loss=keras.losses.BinaryCrossentropy(),
)

# `fit` shuffles the rows at each epoch, and runs 32 batches: 31 of 32 rows, and one of the last 8.
history = model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0)
print(f"epoch {epochs}: average loss {history.history['loss'][-1]:.6f}")

# The weights as they are now, held still, over the same rows.
print(f"final weights: loss {model.evaluate(x, y, batch_size=batch_size, verbose=0):.6f}")
