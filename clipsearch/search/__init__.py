"""A query: its terms, ranking, confidence, the opened index and the model at work."""
