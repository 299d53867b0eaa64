"""The lecture's own experiments, one per file: each claim measured, drawn, and held to its inequality."""
