from allauth.account.internal.flows.login import record_authentication
from allauth.account.utils import perform_login
from allauth.mfa.base.views import IndexView
from django.conf import settings
from django.contrib import messages
from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_POST, require_safe

from accounts import tokens
from accounts.identity import people, sessions
from accounts.models import User
from accounts.sign_in import SignInForm
from common.pages import paginate


class SignIn(auth.LoginView):
    """Name and password. The second factor, if the person has one, is asked for on the next page."""

    template_name = "accounts/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        user = form.get_user()
        record_authentication(self.request, user, "password")
        answer: HttpResponse = perform_login(self.request, user, redirect_url=self.get_success_url())
        return answer

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        status = 429 if isinstance(form, SignInForm) and form.is_refused_unread else 400
        return self.render_to_response(self.get_context_data(form=form), status=status)

    def get_context_data(self, **more: object) -> dict[str, object]:
        provider = settings.OIDC_NAME if settings.OIDC_ISSUER else ""
        return super().get_context_data(provider=provider, **more)


@method_decorator(login_not_required, name="dispatch")
class SignOut(auth.LogoutView):
    """By POST only; signing out again is allowed."""


class Account(IndexView):
    """A person's own account: roles, second factors, and where they are signed in."""

    template_name = "accounts/account.html"

    def get_context_data(self, **more: object) -> dict[str, object]:
        user = self.request.user
        assert isinstance(user, User)
        others = [other.username for other in people.list_accounts(user) if other != user]
        rows = sessions.list_sessions(user, self.request.session.session_key)
        context: dict[str, object] = super().get_context_data(sessions=rows, other_accounts=others, **more)
        return context


@require_POST
def end_session(request: HttpRequest, number: str) -> HttpResponse:
    """End one of the person's own sessions."""
    assert isinstance(request.user, User)
    sessions.end_session(request.user, number)
    messages.success(request, "The session has ended.")
    return redirect("account")


@require_safe
def list_tokens(request: HttpRequest) -> HttpResponse:
    """When each token expires and was last used."""
    now = timezone.now()
    rows = tokens.list_unrevoked().order_by("-pk")
    context = {"page": paginate(request, rows), "now": now, "warned_until": now + tokens.WARNING_TIME}
    return render(request, "accounts/tokens.html", context)
