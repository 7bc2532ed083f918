"""What goes to the Hub and into a model card, and what never does."""
