"""Networks whose Python asks tensors for their values, or changes them as it runs."""
