from django.urls import path

from deploy.views import board, bots, coins, keys, launch, releases, reports

urlpatterns = [
    path("", board.show, name="board"),
    path("pin/", board.pin, name="pin"),
    path("bots/", bots.index, name="bots"),
    path("bots/<int:pk>/retire/", bots.retire, name="bot-retire"),
    path("bots/keys/", keys.index, name="keys"),
    path("bots/keys/<str:key_id>/<str:verb>/", keys.change, name="key-change"),
    path("coins/", coins.index, name="coins"),
    path("coins/<str:symbol>/", coins.change, name="coin-change"),
    path("datasets/<int:pk>/withdraw/", coins.withdraw, name="dataset-withdraw"),
    path("launch/", launch.launch, name="launch"),
    path("studies/<int:pk>/release/", launch.launch_study, name="study-release"),
    path("launch/estimate/", launch.estimate, name="estimate"),
    path("releases/", releases.index, name="releases"),
    path("releases/<int:pk>/", releases.show, name="release"),
    path("releases/<int:pk>/charts/<str:symbol>/", releases.charts, name="release-charts"),
    path("releases/<int:pk>/live/<str:symbol>/", releases.live_charts, name="release-live-charts"),
    path("releases/<int:pk>/report/", reports.show, name="release-report"),
    path("releases/<int:pk>/report/file/", reports.file, name="release-report-file"),
    path("releases/<int:pk>/report/charts/<str:symbol>/", reports.charts, name="release-report-charts"),
    path("releases/<int:pk>/<str:action>/", releases.decide, name="decide"),
]
