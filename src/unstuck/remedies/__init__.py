"""One change per file: `Problem → Problem`, with the line of code a user would write."""
