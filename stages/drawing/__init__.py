"""What several stages draw with."""
