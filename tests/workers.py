"""How tests are shared among workers, when `scripts/check` starts them; a plain pytest has none."""

from xdist.scheduler import LoadScopeScheduling

EACH_BY_ITSELF = "tests/scenarios/"


class Shares(LoadScopeScheduling):
    """Gives a worker that has little left to do the next module, or the next scenario in a cell.

    A module is never divided, so that what it shares, such as a live server or a run undisturbed, is made once.
    Scenarios share nothing: each makes its own servers, and some modules of theirs take minutes. They come after nearly
    all others, as they are collected, and of pieces so small none keeps one worker busy for long after the others.
    """

    def _split_scope(self, nodeid):
        return nodeid if nodeid.startswith(EACH_BY_ITSELF) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config, log):
    return Shares(config, log)
