"""The section of the parameters that switches what the regularized model has beyond the augmented one."""
