"""The index on disk, and what `index` does with it. Nothing else knows its format.

A folder holds `embeddings.npy`, (rows, D) float16 unit vectors, and `index.db`, SQLite, which is the truth: a row
counts once its record is committed, and records are committed only after their rows are flushed. Rows past the
committed ones are leftovers of a crash; the next writer cuts them off. Readers take no lock. docs/index-format.md
describes all of it for other programs.
"""
