from django.urls import path

from studies import views

urlpatterns = [
    path("studies/", views.index, name="studies"),
    path("studies/launch/", views.launch, name="study-launch"),
    path("studies/<int:pk>/", views.show, name="study"),
    path("studies/<int:pk>/charts/", views.charts, name="study-charts"),
    path("studies/<int:pk>/cancel/", views.cancel, name="study-cancel"),
]
