"""A Django project as tutorials have it: what QFLARE is measured against."""
