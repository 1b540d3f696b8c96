"""The passes, in the road's order. Each file holds one."""
