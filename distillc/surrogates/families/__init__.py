"""The surrogate families. Each file holds one; `distillc.surrogates.family` says what one is."""
