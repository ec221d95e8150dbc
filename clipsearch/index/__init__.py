"""The index on disk: its format, reading, writing and verifying it, and bringing it up to date with folders.

An index is a folder with `embeddings.npy`, (rows, D) float16 unit vectors, and the SQLite database `index.db`. The
database decides: a row of the matrix is valid once its record is committed, and records are committed only after their
rows are flushed. Rows after the committed ones are leftovers of a crash, which the next writer truncates. Readers take
no lock. docs/index-format.md describes the format for other programs.
"""
