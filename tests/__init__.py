import stages  # noqa: F401  # first: it holds what the user's shell exports
