"""A page that breaks, among the service's own."""

from typing import NoReturn

from django.http import HttpRequest
from django.urls import path

from crpbot.urls import urlpatterns as own


def broken(request: HttpRequest) -> NoReturn:
    raise ZeroDivisionError


urlpatterns = [path("broken/", broken), *own]
