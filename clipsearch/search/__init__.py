"""Queries: their terms, ranking, confidence, the opened index and the loaded model."""
