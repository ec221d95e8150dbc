"""Output: hits and reports as tables, TSV, JSON or bare paths. Nothing here writes to stderr."""
