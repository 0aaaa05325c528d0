"""Keras training, a step at a time or an epoch on the device; see `lossledger.loop.loop`."""
