"""Segments of entries as files: the open one an Arrow stream, a sealed one Parquet."""
