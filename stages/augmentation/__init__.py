"""Random transformations of the training images."""
