"""The recorder: from the taps to the run folder."""
