"""A soak: everything restarts in random order, under a crowd that keeps account, for as long as one likes."""
