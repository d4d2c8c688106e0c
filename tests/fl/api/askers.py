"""A process that does one command under a key, to be started several times at once: `python -m tests.fl.api.askers`.

It says "ready", waits for a line, asks, and prints [what was answered, whether it is an earlier answer].
"""

import json
import sys

import django


def main():
    django.setup()
    from django.contrib.auth.models import User
    from django.db import connection
    from django.utils import timezone

    from fl.api.idempotency import Answer, do_once
    from fl.people import issue_sign_in_code

    (user, _), now = User.objects.get_or_create(username="ada"), timezone.now()

    def command():
        return Answer(200, {"code": issue_sign_in_code(user=user, now=now)})

    connection.ensure_connection()
    print("ready", flush=True)
    sys.stdin.readline()
    answer = do_once(user=user, key="k", request_hash="h", now=now, command=command)
    print(json.dumps([answer.data, answer.repeated]))


if __name__ == "__main__":
    main()
