"""The demonstration: the example programs, recorded, and what their numbers say."""
