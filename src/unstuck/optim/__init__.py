"""Update rules over stacked parameters: many trainings, one tensor operation."""
