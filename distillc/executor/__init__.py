"""What runs jobs: this process, or a Ray cluster. Passes do not know which."""
