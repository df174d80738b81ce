"""The nouns of the package. Nothing here imports anything of the package but `core` itself."""
