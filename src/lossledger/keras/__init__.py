"""Getting the entry out of Keras's compiled training step, on each backend."""
