"""Real programs that tests start for themselves and end again: PostgreSQL, Redis, Chromium."""
