"""What docs/protocol.md says of messages that cannot be taken."""

import re
from pathlib import Path

_PROTOCOL = (Path(__file__).parent.parent.parent / "docs" / "protocol.md").read_text()
_MISTAKES = re.search(r"What cannot be taken is answered by(.*?)Ten errors", _PROTOCOL, re.DOTALL).group(1)

DOCUMENTED = set(re.findall(r"`([a-z_]+)`", _MISTAKES))
"""The codes of their answers."""
