"""Images made from a trained network, for those who may not see what it was trained on."""
