"""The door of weights for devices: who may have which, and what is answered; no request of Django's.

What takes requests from the server (`qflare/downloads.py`) calls it once for each, from a thread.
"""

from collections.abc import Mapping

from fl.api.streaming import FilePart, Reply, read_part, reply_for
from fl.devices import active_device
from fl.exceptions import NotFound
from fl.files import open_file
from fl.visibility import models_for


def fetch_weights(
    digest: str, device_id: int, method: str, headers: Mapping[str, str]
) -> tuple[Reply, bytes | FilePart]:
    """Return the answer to a device that asks for weights by their digest, and its bytes, or what reads them.

    Args:
        device_id: who asks, as `sender_of` says.
        headers: of the request, by their names in lower case.

    Raises:
        Unauthenticated: the device is none of ours any more, or may not come in.
        NotFound: there are no such weights, or none that the device may have.
    """
    model = models_for(active_device(device_id)).filter(digest=digest).order_by("pk").first()
    if model is None:
        raise NotFound(f"there are no weights {digest} for this device")
    reply = reply_for(model, method, headers)
    if reply.is_long:
        return reply, FilePart(open_file(model.file), reply.start, reply.size)
    return reply, read_part(model, reply)
