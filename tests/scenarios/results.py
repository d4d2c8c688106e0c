"""The table at the end of a run: how each scenario ended in each cell, whichever worker tried it."""

from collections import defaultdict

from tests.scenarios.table import CELLS, NUMBERS, SCENARIOS, SEED, load, reasons


class Results:
    """How the tests of each cell ended."""

    def __init__(self):
        self._of = defaultdict(list)

    def add(self, nodeid, passed):
        """Take note of a test's end, or of that of a part of it."""
        test, _, cell = nodeid.removesuffix("]").partition("[")
        self._of[test.replace(".py::", ".").replace("/", "."), cell].append(passed)

    def lines(self):
        """Return the table."""
        yield " ".join([f"{'scenario':>8}", *(f"{cell!s:>14}" for cell in CELLS), " rule"])
        for number in NUMBERS:
            rules = [one.rule for one in SCENARIOS.values() if one.number == number]
            words = (f"{self._word(number, cell):>14}" for cell in CELLS)
            yield " ".join([f"{number:>8}", *words, f" {rules[0] if rules else ''}"])
        for reason, where in sorted(reasons().items()):
            yield f"n/a in {where}: {reason}"

    def __bool__(self):
        return any(cell for _, cell in self._of)

    def _word(self, number, cell):
        ours = {name: one for name, one in SCENARIOS.items() if one.number == number}
        ends = [end for name in ours for end in self._of.get((name, str(cell)), [])]
        if ends:
            return "pass" if all(ends) else "FAIL"
        return "n/a" if ours and all(cell in one.not_applicable for one in ours.values()) else "-"


results = Results()


def pytest_runtest_logreport(report):
    """Called where the run is led, with what all workers report; of one that died too."""
    if report.nodeid.startswith("tests/scenarios/") and (report.when == "call" or not report.passed):
        results.add(report.nodeid, report.passed)


def pytest_terminal_summary(terminalreporter):
    if results:
        # Who leads a run of workers has collected nothing itself.
        load()
        terminalreporter.section(f"the hard scenarios, by server and channel layer (QFLARE_TEST_SEED={SEED})")
        for line in results.lines():
            terminalreporter.write_line(line)
