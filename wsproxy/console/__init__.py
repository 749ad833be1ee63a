"""What a running daemon says of itself, fetched and shown on a terminal."""
