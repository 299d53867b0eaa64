"""One instrument per file: `measure(problem) -> record`. Probes work on copies and leave no trace."""
