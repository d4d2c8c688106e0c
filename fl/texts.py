"""What the pages' scripts say, in the language of a page: the catalogue `djangojs`, for static/js/texts.js."""

from functools import cache
from typing import Any

from django.conf import settings
from django.utils.translation.trans_real import DjangoTranslation
from django.views.i18n import JSONCatalog


@cache
def texts_of(language: str) -> dict[str, Any]:
    """Return what scripts say by what stands in them, which is English; of what counts, for one and for more.

    The scripts know these two forms, as English and German have them; a language with others needs more of texts.js.
    """
    catalogue: Any = JSONCatalog()
    folders = [str(folder) for folder in settings.LOCALE_PATHS]
    catalogue.translation = DjangoTranslation(language, domain="djangojs", localedirs=folders)
    texts: dict[str, Any] = catalogue.get_catalog()
    return texts
