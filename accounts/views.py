from django.contrib.auth import views as auth
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.forms import AuthenticationForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_safe

from accounts import tokens
from accounts.sign_in import SignInForm, remember_browser
from common.pages import paginate


class SignIn(auth.LoginView):
    template_name = "accounts/sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        response = super().form_valid(form)
        remember_browser(self.request, response, form.get_user().get_username())
        return response

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        status = 429 if isinstance(form, SignInForm) and form.is_refused_unread else 400
        return self.render_to_response(self.get_context_data(form=form), status=status)


@method_decorator(login_not_required, name="dispatch")
class SignOut(auth.LogoutView):
    """By POST only; signing out again is allowed."""


@require_safe
def list_tokens(request: HttpRequest) -> HttpResponse:
    """When each token expires and was last used."""
    now = timezone.now()
    rows = tokens.list_unrevoked().order_by("-pk")
    context = {"page": paginate(request, rows), "now": now, "warned_until": now + tokens.WARNING_TIME}
    return render(request, "accounts/tokens.html", context)
