"""Outputs: one class a form, from a run to text. Only `terminal` knows rich."""
