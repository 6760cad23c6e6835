from allauth.account.views import reauthenticate as confirm_password
from allauth.mfa.base import views as codes
from allauth.mfa.recovery_codes import views as recovery_codes
from allauth.mfa.totp import views as app
from allauth.mfa.webauthn import views as keys
from django.urls import path

from accounts import views
from accounts.identity import oidc

# The names with an underscore are those by which django-allauth finds its pages.
urlpatterns = [
    path("sign-in/", views.SignIn.as_view(), name="sign-in"),
    path("sign-in/", views.SignIn.as_view(), name="account_login"),
    path("sign-in/code/", codes.authenticate, name="mfa_authenticate"),
    path("sign-in/<str:provider_id>/", oidc.sign_in, name="openid_connect_login"),
    path("sign-in/<str:provider_id>/callback/", oidc.callback, name="openid_connect_callback"),
    path("sign-out/", views.SignOut.as_view(), name="sign-out"),
    path("tokens/", views.list_tokens, name="tokens"),
    path("account/", views.Account.as_view(), name="account"),
    path("account/", views.Account.as_view(), name="mfa_index"),
    path("account/sessions/<str:number>/end/", views.end_session, name="session-end"),
    path("account/confirm/", codes.reauthenticate, name="mfa_reauthenticate"),
    path("account/confirm/key/", keys.reauthenticate_webauthn, name="mfa_reauthenticate_webauthn"),
    path("account/confirm/password/", confirm_password, name="account_reauthenticate"),
    path("account/app/", app.activate_totp, name="mfa_activate_totp"),
    path("account/app/remove/", app.deactivate_totp, name="mfa_deactivate_totp"),
    path("account/keys/", views.Account.as_view(), name="mfa_list_webauthn"),
    path("account/keys/add/", keys.add_webauthn, name="mfa_add_webauthn"),
    path("account/keys/<int:pk>/remove/", keys.remove_webauthn, name="mfa_remove_webauthn"),
    path("account/recovery-codes/", recovery_codes.view_recovery_codes, name="mfa_view_recovery_codes"),
    path(
        "account/recovery-codes/new/",
        recovery_codes.generate_recovery_codes,
        name="mfa_generate_recovery_codes",
    ),
]
