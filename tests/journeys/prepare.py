"""Sets up a server's data folder before its first start: the database, an admin, and tokens for devices.

python -m tests.journeys.prepare COUNT: prints COUNT enrolment tokens, a line each.
"""

import sys
from datetime import timedelta

import django
from django.core.management import call_command

ADMIN = "ada"
PASSWORD = "correct horse battery staple"


def main():
    django.setup()
    call_command("migrate", verbosity=0, interactive=False)

    from django.contrib.auth.models import Group, User  # models can be imported only now
    from django.utils import timezone

    from fl.devices import issue_token

    admin = User.objects.create_user(ADMIN, password=PASSWORD)
    admin.groups.add(Group.objects.get(name="admin"))
    for _ in range(int(sys.argv[1])):
        _, text = issue_token(
            label="journeys", auto_approve=True, lifetime=timedelta(days=1), created_by=admin, now=timezone.now()
        )
        print(text)


if __name__ == "__main__":
    main()
