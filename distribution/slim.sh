#!/bin/sh
# `sh slim.sh SITE_PACKAGES`: remove from the image's packages what no process of the service loads.
set -eu
cd "$1"

# Headers, test programs and test data, with which one builds against a package or tests it.
rm -rf torch/include torch/share torch/test ccxt/test onnx/backend/test
find torch/bin -type f ! -name torch_shm_manager -delete
rm -f torch/lib/lib*_test.so torch/lib/libbackend_with_compiler.so torch/lib/libaoti_custom_ops.so
find numpy scipy sklearn sympy networkx joblib supervisor -type d -name tests -prune -exec rm -rf {} +

# ccxt without its asynchronous copies, which training/exchange.py does not use.
rm -rf ccxt/async_support ccxt/pro ccxt/prediction

# botocore without the descriptions of AWS services that this one does not call, and onnxruntime without its converters.
find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name ec2 ! -name iam ! -name pricing \
    ! -name ssm ! -name 'sso*' ! -name signin -exec rm -rf {} +
rm -rf onnxruntime/transformers onnxruntime/quantization onnxruntime/tools
# The same library again for programs in C; Python's module has its own copy inside.
rm -f onnxruntime/capi/libonnxruntime.so.*

# plotly without its Python half and its notebook widget: pages load plotly.min.js alone.
rm -rf plotly/graph_objs plotly/validators plotly/labextension plotly/package_data/widgetbundle.js

# The second viewer of the API's schema, maps, and the sample data of scikit-learn.
rm -rf drf_spectacular_sidecar/static/drf_spectacular_sidecar/redoc django/contrib/gis
rm -rf sklearn/datasets/data sklearn/datasets/images sklearn/datasets/descr

# Translations: the service speaks English.
find django rest_framework django_filters axes -type d -path '*/locale/*' ! -path '*/locale/en*' -prune -exec rm -rf {} +

# Symbol tables, which only a debugger reads. Not of all libraries: `strip` breaks those whose layout auditwheel changed.
strip --strip-unneeded torch/lib/libtorch_cpu.so torch/lib/libtorch_python.so _polars_runtime_32/*.so \
    uvloop/*.so aiohttp/*.so cryptography/hazmat/bindings/*.so
