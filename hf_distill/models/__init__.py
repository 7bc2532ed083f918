"""Models of transformers as this package meets them: facts, hooks, outputs, heads, logits in several forms."""
