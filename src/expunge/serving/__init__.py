"""The boxed model over HTTP: an OpenAI-compatible endpoint of which only input and output are public."""
