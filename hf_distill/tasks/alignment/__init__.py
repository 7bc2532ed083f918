"""Two vocabularies: what of two language models is compared, and where."""
