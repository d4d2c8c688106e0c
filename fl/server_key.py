"""The server's own key: made at the first start, shared by its processes, pinned by devices."""

from contextlib import suppress
from functools import cache
from pathlib import Path
from threading import Lock

from django.conf import settings

from edge.identity import SigningKey


def server_key() -> SigningKey:
    """Return the server's key, making it if there is none.

    Raises:
        KeyUnreadable: the file is damaged or open to other users.
    """
    return _load(Path(settings.QFLARE_SERVER_KEY))


# Two threads that find no key must not make one each.
_making = Lock()


@cache
def _load(path: Path) -> SigningKey:
    with _making:
        if not path.exists():
            # Another process of this server may be first; then its key is the one.
            with suppress(FileExistsError):
                SigningKey.generate().save(path)
        return SigningKey.load(path)
