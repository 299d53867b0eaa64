"""The lecture's chapters on the user's own network: what was measured and raced, in sentences, figures and charts."""
