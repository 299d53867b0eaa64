"""Control, remedied copies and a placebo, trained side by side on the same batches; verdicts with intervals."""
