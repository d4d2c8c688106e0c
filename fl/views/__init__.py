"""The pages: each parses, reads through `fl.queries` or calls one use case, and answers."""
