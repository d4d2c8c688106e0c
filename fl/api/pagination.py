"""How lists are cut into pages."""

from rest_framework.pagination import PageNumberPagination


class Pages(PageNumberPagination):
    """Pages by number; a client may ask for up to 500 rows a page."""

    page_size_query_param = "page_size"
    max_page_size = 500
