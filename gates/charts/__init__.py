"""A diagnosis and live predictions as plain Plotly figures."""
