"""For notebooks: the rows of a dataset as the gate computes them, and a model from outside on its way through the gates.

    from crpbot_runtime.train import Gate

    with Gate("https://gate.example", token) as gate:  # a token of the scope operator
        (dataset, *_) = gate.datasets(coin="BTC", verdict="passed")
        rows = gate.prepare(dataset, input="relative72", horizon=24)
        graph = my_fit(rows.fit.features, rows.fit.labels)  # the bytes of an ONNX file
        print(gate.check(rows, graph, has_scaler=False))  # every gate that can be run here, on the stop window
        bundle = gate.upload(rows, graph, line="notebook", has_scaler=False)
        newer = gate.wait_for_dataset(bundle)
        release = gate.launch("notebook", bundles={"BTC": bundle["digest"]}, datasets={"BTC": newer["id"]})
        release = gate.wait(release)

All but `check` needs nothing that a bot does not need; `check` needs the packages of `crpbot-runtime[train]`.
"""

from crpbot_runtime.train.gate import Gate
from crpbot_runtime.train.rows import Rows, Window, prepare

__all__ = ["Gate", "Rows", "Window", "prepare"]
