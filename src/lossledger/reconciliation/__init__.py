"""Why two reported losses differ: the gap, cause by cause."""
