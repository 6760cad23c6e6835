"""The addresses of the API, under `api/`."""

from django.urls import include, path, re_path
from django.views.generic import TemplateView
from drf_spectacular.views import SpectacularJSONAPIView

from accounts import api as accounts
from audit import api as audit
from crpbot.api.not_found import UnknownAddress
from crpbot.backup.api import Backups
from deploy.api import active, alarms, bots, coins, decisions, keys, live, releases, reports, statements
from gates import api as gates
from machines import api as machines
from studies import api as studies
from training.api import artifacts, bundles, datasets, lines, runs, workers

app_name = "api"

v1 = [
    path("active/", active.Active.as_view(), name="active"),
    path("active/keys/", active.KeySets.as_view(), name="active-keys"),
    path("active/signed/", active.SignedActive.as_view(), name="active-signed"),
    path("active/stream/", active.ActiveStream.as_view(), name="active-stream"),
    path("alarms/", alarms.Alarms.as_view(), name="alarms"),
    path("artifacts/<str:sha256>", artifacts.Artifacts.as_view(), name="artifact"),
    path("audit/", audit.Events.as_view(), name="audit"),
    path("backups/", Backups.as_view(), name="backups"),
    path("bots/", bots.Bots.as_view(), name="bots"),
    path("bots/heartbeat/", bots.Heartbeat.as_view(), name="heartbeat"),
    path("bots/retire/", bots.RetireBot.as_view(), name="retire-bot"),
    path("bots/windows/", live.LiveWindows.as_view(), name="windows"),
    path("bundles/", bundles.Bundles.as_view(), name="bundles"),
    path("bundles/<str:digest>/statement/", statements.BundleStatement.as_view(), name="statement"),
    path("coins/", coins.Coins.as_view(), name="coins"),
    path("coins/<str:symbol>/", coins.OneCoin.as_view(), name="coin"),
    path("datasets/", datasets.Datasets.as_view(), name="datasets"),
    path("datasets/check/", datasets.CheckUpload.as_view(), name="check-upload"),
    path("datasets/<int:id>/candles.<str:form>", datasets.Candles.as_view(), name="candles"),
    path("datasets/<int:id>/withdraw/", coins.WithdrawDataset.as_view(), name="withdraw-dataset"),
    path("diagnoses/", gates.Diagnoses.as_view(), name="diagnoses"),
    path("diagnoses/<int:id>/", gates.DiagnosisDetail.as_view(), name="diagnosis"),
    path("diagnoses/<int:id>/judge/", gates.JudgeAgain.as_view(), name="judge-again"),
    path("keys/", keys.Keys.as_view(), name="keys"),
    path("keys/<str:key>/activate/", keys.ActivateKey.as_view(), name="activate-key"),
    path("keys/<str:key>/approve/", keys.ApproveRetirement.as_view(), name="approve-key-retirement"),
    path("keys/<str:key>/propose/", keys.ProposeRetirement.as_view(), name="propose-key-retirement"),
    path("keys/<str:key>/retire/", keys.RetireKey.as_view(), name="retire-key"),
    path("lines/", lines.Lines.as_view(), name="lines"),
    path("machines/", machines.Machines.as_view(), name="machines"),
    path("machines/<int:id>/stop/", machines.StopMachine.as_view(), name="stop-machine"),
    path("machines/limits/", machines.MonthlyLimits.as_view(), name="monthly-limits"),
    path("machines/prices/", machines.MachinePrices.as_view(), name="machine-prices"),
    path("moves/", decisions.Moves.as_view(), name="moves"),
    path("moves/<int:revision>/", bots.MoveDetail.as_view(), name="move"),
    path("moves/<int:revision>/acknowledgements/", bots.Acknowledgements.as_view(), name="acknowledgements"),
    path("pointer/pin/", decisions.Pin.as_view(), name="pin"),
    path("policies/", gates.Policies.as_view(), name="policies"),
    path("policies/drafts/", gates.PolicyDrafts.as_view(), name="policy-drafts"),
    path("policies/<int:number>/", gates.PolicyDetail.as_view(), name="policy"),
    path("policies/<int:number>/adopt/", gates.AdoptPolicy.as_view(), name="adopt-policy"),
    path("recipes/", lines.Recipes.as_view(), name="recipes"),
    path("releases/", releases.Releases.as_view(), name="releases"),
    path("releases/<int:id>/", releases.ReleaseDetail.as_view(), name="release"),
    *(
        path(f"releases/<int:id>/{action}/", view.as_view(), name=str(action))
        for action, view in decisions.DECISION_VIEWS.items()
    ),
    path("releases/<int:id>/report/", reports.ReleaseReport.as_view(), name="report"),
    path("runs/", runs.Runs.as_view(), name="runs"),
    path("runs/<int:id>/", runs.RunDetail.as_view(), name="run"),
    path("runs/<int:id>/annotate/", runs.AnnotateRun.as_view(), name="annotate-run"),
    path("runs/<int:id>/cancel/", runs.CancelRun.as_view(), name="cancel-run"),
    path("runs/<int:id>/epochs/", runs.RunEpochs.as_view(), name="epochs"),
    path("runs/<int:id>/log/", runs.RunLog.as_view(), name="log"),
    path("runs/<int:id>/relaunch/", runs.RelaunchRun.as_view(), name="relaunch-run"),
    path("runs/compare/", runs.CompareRuns.as_view(), name="compare-runs"),
    path("studies/", studies.Studies.as_view(), name="studies"),
    path("studies/<int:id>/", studies.StudyDetail.as_view(), name="study"),
    path("studies/<int:id>/cancel/", studies.CancelStudy.as_view(), name="cancel-study"),
    path("studies/<int:id>/trials/", studies.StudyTrials.as_view(), name="trials"),
    path("tokens/", accounts.Tokens.as_view(), name="tokens"),
    path("workers/", workers.Workers.as_view(), name="workers"),
]

urlpatterns = [
    path("v1/", include(v1)),
    path("schema/", SpectacularJSONAPIView.as_view(), name="schema"),
    path("docs/", TemplateView.as_view(template_name="crpbot/api_docs.html"), name="docs"),
    re_path("", UnknownAddress.as_view(), name="unknown"),
]
