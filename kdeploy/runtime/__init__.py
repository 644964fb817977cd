"""What runs on the device: opens a bundle, reads pictures, predicts. NumPy, Pillow and one engine."""

from kdeploy.runtime.images import read_image
from kdeploy.runtime.predict import Prediction, Predictor
from kdeploy.runtime.preprocess import preprocess

__all__ = ["Prediction", "Predictor", "preprocess", "read_image"]
