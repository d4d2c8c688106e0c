"""How many queries a page takes."""

from django.db import connection
from django.test.utils import CaptureQueriesContext


def queries_of(client, address):
    """Return how many queries a page takes."""
    with CaptureQueriesContext(connection) as captured:
        assert client.get(address).status_code == 200
    return len([query for query in captured if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "SET"))])
