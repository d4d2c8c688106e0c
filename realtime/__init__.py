"""Who is connected, and what they are told: consumers, groups, the hub, receivers of `fl`'s signals."""
