"""What every test may use: the services, and Hypothesis without deadlines."""

import hypothesis

pytest_plugins = ["tests.services.chromium", "tests.services.postgres", "tests.services.redis"]

# Machines are shared: how long an example takes says nothing about whether the law holds.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")
