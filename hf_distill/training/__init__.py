"""What the trainer conducts: checks before the first step, the supervised loss, checkpoints, metrics."""
