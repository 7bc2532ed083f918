"""What each word after ``hf-distill`` does: one file a command, each with a ``main(argv)``."""
