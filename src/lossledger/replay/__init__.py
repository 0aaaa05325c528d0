"""Training again with one thing swapped, to price what bookkeeping can't."""
