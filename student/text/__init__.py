"""Text encoders: category names and phrases to vectors."""
