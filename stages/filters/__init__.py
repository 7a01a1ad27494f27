"""What a network's filters respond to: activations, evidence, pictures, the page to explore."""
