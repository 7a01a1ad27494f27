"""The MLP and the CNN, their files, and the batches of images that they take."""
