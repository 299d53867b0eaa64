"""One cause per file, named after its id. `RULES` lists them in the order of `causes.md`."""

from __future__ import annotations

from unstuck.rules import dead_units, learning_rate_too_high, softmax_applied_twice
from unstuck.rules.rule import Rule

RULES: tuple[Rule, ...] = (
    # 1 critical points and the landscape
    # 2 signal flow
    dead_units.RULE,
    # 3 step size and optimizer
    learning_rate_too_high.RULE,
    # 4 batches
    # 5 loss, outputs and labels
    softmax_applied_twice.RULE,
    # 6 inputs
    # 7 batch normalization
    # 8 the training loop
    # 9 capacity and generalization
    # 10 numbers
)
