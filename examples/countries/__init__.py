"""The example behind `make demo`: a world of countries and a small model that answers questions about their maps.

`world` has the data, `train` the training of the model, `prepare` what `configs/demo.yaml` names. No code outside of
examples/ and its tests imports it.
"""
