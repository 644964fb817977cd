"""What was measured in formats that other programs read: one format a file."""
