from django.urls import path

from machines import views

urlpatterns = [
    path("machines/", views.index, name="machines"),
    path("machines/start/", views.start, name="machine-start"),
    path("machines/<int:pk>/stop/", views.stop, name="machine-stop"),
    path("machines/prices/", views.price, name="machine-price"),
    path("machines/limit/", views.limit, name="machine-limit"),
]
