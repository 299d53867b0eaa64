"""The shells that touch live objects: hooks, the loss tape, the script runner. All else works on copies."""
