"""What the polled list shows."""

from typing import ClassVar

from django.db import models


class Happening(models.Model):
    """An event, as rows of a table that clients poll."""

    objects: ClassVar[models.Manager["Happening"]] = models.Manager()
    text = models.CharField(max_length=400)

    def __str__(self) -> str:
        return self.text
