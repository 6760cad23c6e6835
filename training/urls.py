from django.urls import path

from training.views import bundles, datasets, lines, runs, workers

urlpatterns = [
    path("runs/", runs.index, name="runs"),
    path("runs/<int:pk>/", runs.show, name="run"),
    path("runs/<int:pk>/charts/", runs.charts, name="run-charts"),
    path("runs/compare/", runs.compare, name="run-compare"),
    path("runs/compare/charts/", runs.compare_charts, name="run-compare-charts"),
    path("runs/<int:pk>/annotate/", runs.annotate, name="run-annotate"),
    path("runs/<int:pk>/cancel/", runs.cancel, name="run-cancel"),
    path("runs/<int:pk>/again/", runs.again, name="run-again"),
    path("bundles/", bundles.index, name="bundles"),
    path("datasets/", datasets.index, name="datasets"),
    path("datasets/<int:pk>/", datasets.show, name="dataset"),
    path("datasets/check/", datasets.check, name="dataset-check"),
    path("datasets/<int:pk>/candles.<str:form>", datasets.download, name="dataset-candles"),
    path("datasets/<int:pk>/charts/", datasets.price, name="dataset-charts"),
    path("lines/", lines.index, name="lines"),
    path("workers/", workers.index, name="workers"),
]
