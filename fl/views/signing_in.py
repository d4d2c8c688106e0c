"""How people sign in: by name and password, or by the code of a link."""

from django.contrib.auth import login
from django.contrib.auth.signals import user_login_failed
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from fl import people
from fl.exceptions import FlError
from fl.views.page import sentence_of, way_back


class Login(LoginView):
    """The login by name and password."""

    extra_context = {"page": "login"}


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in(request: HttpRequest) -> HttpResponseBase:
    """Exchange a code for a session; the page's script takes it from the address's fragment, which is never sent."""
    refused = ""
    if request.method == "POST":
        try:
            person = people.redeem_sign_in_code(code=request.POST.get("code", ""), now=timezone.now())
        except FlError as error:
            refused = sentence_of(error)
            # As `authenticate` tells of a password that is wrong.
            user_login_failed.send(__name__, credentials={}, request=request)
        else:
            login(request, person)
            return redirect(way_back(request, reverse("overview")))
    return render(request, "sign_in.html", {"page": "sign-in", "refused": refused}, status=403 if refused else 200)
