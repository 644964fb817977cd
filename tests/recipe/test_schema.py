"""What of a recipe decides the work."""

from kdeploy.recipe.schema import DataSpec


def test_data_are_known_as_they_were_before_newer_fields_came() -> None:
    """By this hash finished work is known; a field that is off must not make it count as another's."""
    known = {
        "source": "sklearn-digits",
        "root": None,
        "download": True,
        "options": {},
        "validation": 0.1,
        "test": 0.2,
        "split_seed": 0,
        "limit": None,
        "size": None,
        "broken": "stop",
        "normalize": "train",
        "augment": {"crop": 4, "flip": True},
    }
    assert DataSpec().deciding() == known
    assert DataSpec(memory=False).deciding() == known
    without = {key: value for key, value in known.items() if key not in ("augment", "normalize")}
    assert DataSpec().deciding("augment", "normalize") == without
    changed = DataSpec.model_validate({"augment": {"crop": 0, "cutmix": 1, "randaugment": {}}}).deciding()
    assert changed["augment"] == {
        "crop": 0,
        "flip": True,
        "cutmix": 1.0,
        "randaugment": {"operations": 2, "magnitude": 9},
    }
