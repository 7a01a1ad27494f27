"""The section of the parameters that switches the regularization methods."""
