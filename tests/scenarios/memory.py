"""How much memory a server takes at its worst, above what it had before."""

from pathlib import Path

MB = 1_000_000


class Level:
    """What a server had in memory when this was made; `rise` says how far above that it has been since."""

    def __init__(self, server):
        self._folder = Path(f"/proc/{server.process.pid}")
        (self._folder / "clear_refs").write_text("5")  # the peak begins anew
        self._level = self._kb("VmRSS")

    @property
    def rise(self):
        """The highest peak since, in bytes above the level."""
        return (self._kb("VmHWM") - self._level) * 1024

    @property
    def growth(self):
        """What there is now, in bytes above the level."""
        return (self._kb("VmRSS") - self._level) * 1024

    def _kb(self, name):
        lines = (self._folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
