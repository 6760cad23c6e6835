from django.urls import path

from gates.views import diagnoses, policies

urlpatterns = [
    path("diagnoses/<int:pk>/", diagnoses.show, name="diagnosis"),
    path("diagnoses/<int:pk>/charts/", diagnoses.charts, name="diagnosis-charts"),
    path("diagnoses/<int:pk>/judge/", diagnoses.judge_again, name="diagnosis-judge"),
    path("policies/", policies.index, name="policies"),
    path("policies/propose/", policies.propose, name="policy-propose"),
    path("policies/drafts/<slug:name>/", policies.draft, name="policy-draft"),
    path("policies/<int:number>/", policies.show, name="policy"),
    path("policies/<int:number>/adopt/", policies.adopt, name="policy-adopt"),
]
