"""SimKD changes what is deployed: the projector and the teacher's classifier travel with the student."""

import numpy as np
import torch

from kdeploy.models import create
from kdeploy.models.classifier import Classifier
from kdeploy.models.reused_head import Projector, ReusedHead
from kdeploy.models.storage import load_network, save_network
from kdeploy.recipe.schema import NetworkSpec


def test_a_student_with_a_reused_head_is_saved_and_rebuilt(tmp_path):
    torch.manual_seed(0)
    network = ReusedHead(
        create(NetworkSpec(model="resnet8", width=0.25), classes=4, channels=1),
        "layer3",
        Projector(16, 12, 2, (1, 1)),
        torch.nn.Linear(12, 4),
    )
    classifier = Classifier(network, [0.5], [0.25]).eval()
    card = {
        "model": "resnet8",
        "width": 0.25,
        "options": {},
        "classes": ["a", "b", "c", "d"],
        "image": {"height": 8, "width": 8, "channels": 1},
    }
    save_network(tmp_path / "student", classifier, card)
    again, read = load_network(tmp_path / "student")
    images = torch.from_numpy(np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32))
    with torch.inference_mode():
        torch.testing.assert_close(again(images), classifier(images), rtol=0, atol=0)
    assert read["reused_head"]["tap"] == "layer3"
    assert read["parameters"] == sum(p.numel() for p in classifier.parameters())  # the frozen head counts
