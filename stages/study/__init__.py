"""What the stages share, one small module for each thing."""
