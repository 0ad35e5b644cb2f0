"""The fusion runner: worker, coordinator and clients.

It is copied whole into every bundle, so it imports neither TensorFlow nor Keras nor paradis_tf, and
its modules import each other relatively: `fusion` in the repository is `fusion` inside a
bundle.
"""
