"""The gradients of the sheet's theory, used by tests and docs alone."""
