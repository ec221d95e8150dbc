"""Uses of embeddings besides search: classification, clusters, duplicates, evaluation and checks of models."""
