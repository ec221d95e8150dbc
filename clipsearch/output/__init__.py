"""Output: hits and reports as tables, TSV, JSON or bare paths. stdout is data; nothing here writes to stderr."""
