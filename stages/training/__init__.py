"""Training a network: trainer, checkpoint, device and precision, results."""
