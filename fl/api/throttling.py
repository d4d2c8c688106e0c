"""Against guessing: an address whose enrolments are refused again and again has to wait."""

from django.conf import settings
from rest_framework.request import Request
from rest_framework.throttling import SimpleRateThrottle
from rest_framework.views import APIView

from fl.addresses import client_address


class RefusedEnrollments(SimpleRateThrottle):
    """Counts refusals only, so that a fleet of hundreds of devices behind one address enrols as fast as it can."""

    scope = "refused_enrollments"
    rate = "20/min"
    duration: int
    """Seconds in which so many are allowed; DRF reads it out of `rate`."""

    def get_cache_key(self, request: Request, view: APIView) -> str:
        """Return where the refusals of this address are counted."""
        return self.cache_format % {"scope": self.scope, "ident": self.get_ident(request)}

    def get_ident(self, request: Request) -> str:
        """Return the address that the request comes from; a proxy's word counts where the proxy is known to us."""
        said = request.META.get("HTTP_X_FORWARDED_FOR", "")
        return client_address(request.META.get("REMOTE_ADDR") or "", said, settings.QFLARE_TRUSTED_PROXIES)

    def throttle_success(self) -> bool:
        """Let the request pass without counting it; `count_refusal` does that, when it is one."""
        return True

    def count_refusal(self, request: Request, view: APIView) -> None:
        """Remember that an enrolment from this address was refused."""
        key, now = self.get_cache_key(request, view), self.timer()
        refusals = [moment for moment in self.cache.get(key, []) if moment > now - self.duration]
        self.cache.set(key, [now, *refusals], self.duration)
