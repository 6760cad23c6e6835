from django.urls import path

from gates import views

urlpatterns = [
    path("policies/", views.index, name="policies"),
    path("policies/propose/", views.propose, name="policy-propose"),
    path("policies/<int:number>/", views.show, name="policy"),
    path("policies/<int:number>/adopt/", views.adopt, name="policy-adopt"),
]
