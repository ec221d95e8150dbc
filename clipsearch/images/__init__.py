"""Image files: find them, read them, open one as a person sees it. Knows nothing of models or of the index."""
