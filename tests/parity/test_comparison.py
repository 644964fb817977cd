from __future__ import annotations

import numpy as np
import pytest

from kdeploy.errors import GateFailed, UserError
from kdeploy.parity import Parity, compare, record_path

WEIGHTS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
INPUTS = np.random.default_rng(1).normal(size=(16, 12)).astype(np.float32)


def logits(x):
    return x @ WEIGHTS


def softmax(z):
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_the_same_network_passes_with_exact_figures():
    record = compare(logits, logits, INPUTS, batches=[1, 2, 16], tolerance=1e-4)
    assert record.passed
    assert record.reasons == ()
    assert (record.samples, record.batches, record.compared) == (16, (1, 2, 16), "logits")
    assert record.relative_difference == pytest.approx(0.0, abs=1e-6)
    assert record.cosine_similarity == pytest.approx(1.0, abs=1e-6)
    assert record.top1_agreement == 1.0


def test_figures_of_a_known_difference():
    reference = np.array([[4.0, 0.0], [0.0, 2.0]])
    candidate = np.array([[4.0, 0.0], [2.0, 0.0]])
    record = compare(lambda x: reference[x], lambda x: candidate[x], np.arange(2), batches=[2])
    assert not record.passed
    assert record.max_abs_difference == 2.0
    assert record.relative_difference == 0.5  # of 4, the largest magnitude of the reference
    assert record.cosine_similarity == 0.0  # the second row alone is wrong, and the worst counts
    assert record.top1_agreement == 0.5


def test_tiny_outputs_are_measured_on_their_own_scale():
    # An absolute tolerance of 1e-5 would pass this although every figure is wrong by a tenth.
    record = compare(lambda x: logits(x) * 1e-9, lambda x: logits(x) * 1.1e-9, INPUTS, batches=[1, 16])
    assert record.max_abs_difference < 1e-7
    assert record.relative_difference == pytest.approx(0.1, rel=1e-4)
    assert not record.passed


def test_every_batch_size_counts():
    def frozen_at_one(x):
        return logits(x) if len(x) == 1 else np.repeat(logits(x[:1]), len(x), axis=0)

    assert compare(logits, frozen_at_one, INPUTS, batches=[1]).passed
    assert not compare(logits, frozen_at_one, INPUTS, batches=[1, 2, 16]).passed


def test_probabilities_are_compared_as_centred_log_probabilities():
    def shifted(x):
        return logits(x) + 100.0

    record = compare(shifted, lambda x: softmax(logits(x)), INPUTS, batches=[1, 16], candidate_output="probabilities")
    assert record.compared == "centred log-probabilities"
    assert record.passed, record.reasons


def test_probabilities_near_one_do_not_hide_a_difference():
    # Confident networks: the probabilities differ by less than 1e-8, the logits by a fifth of their scale.
    base = np.array([[30.0, 0.0, 1.0]] * 4)
    other = np.array([[30.0, 0.0, 9.0]] * 4)
    record = compare(
        lambda x: softmax(base[x]),
        lambda x: softmax(other[x]),
        np.arange(4),
        batches=[4],
        reference_output="probabilities",
        candidate_output="probabilities",
    )
    assert np.abs(softmax(base) - softmax(other)).max() < 1e-8
    assert record.relative_difference > 0.2


def test_probabilities_of_tiny_logits_show_nothing_and_that_is_said():
    record = compare(
        lambda x: logits(x) * 1e-9,
        lambda x: softmax(logits(x) * 1e-9).astype(np.float32),
        INPUTS,
        batches=[16],
        candidate_output="probabilities",
    )
    assert not record.passed  # they are right, but any others so close to zero would look the same
    assert "too little for float32 probabilities to show a difference in" in record.reasons[0]


def test_probabilities_that_underflow_count_as_the_smallest_number():
    sure = np.array([[200.0, 0.0, -300.0]] * 2)
    record = compare(
        lambda x: sure[x],
        lambda x: softmax(sure[x]).astype(np.float32),
        np.arange(2),
        batches=[2],
        candidate_output="probabilities",
    )
    assert record.passed, record.reasons


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=["nan", "infinity"])
@pytest.mark.parametrize("tolerance", [1e-4, None], ids=["float32", "int8"])
def test_outputs_that_are_no_numbers_fail_under_any_tolerance(bad, tolerance):
    def broken(x):
        outputs = logits(x)
        outputs[0, 0] = bad
        return outputs

    record = compare(logits, broken, INPUTS, batches=[16], tolerance=tolerance)
    assert not record.passed
    assert record.relative_difference is None
    assert "1 of 16 outputs hold NaN or infinity" in record.reasons[0]


def test_a_wrong_shape_fails():
    record = compare(logits, lambda x: logits(x)[:, :4], INPUTS, batches=[2])
    assert record.reasons == ("at batch 2 it gives [16, 4] instead of [16, 5]",)


def test_without_a_tolerance_the_figures_bind_nothing():
    record = compare(logits, lambda x: -logits(x), INPUTS, batches=[1], tolerance=None)
    assert record.passed
    assert record.cosine_similarity == pytest.approx(-1.0)
    assert record.min_cosine_similarity is None


def test_too_few_inputs_for_the_largest_batch():
    with pytest.raises(UserError, match="batch 32 needs at least 32 inputs, and there are 16"):
        compare(logits, logits, INPUTS, batches=[1, 32])


def test_a_broken_reference_is_a_bug_not_a_verdict():
    with pytest.raises(ValueError, match="the reference must give finite"):
        compare(lambda x: logits(x) * np.nan, logits, INPUTS, batches=[1])


def test_require_names_what_failed_in_one_sentence():
    compare(logits, logits, INPUTS, batches=[1]).require("the student")
    with pytest.raises(GateFailed) as caught:
        compare(logits, lambda x: logits(x) * 1.5, INPUTS, batches=[1]).require("model.float32.onnx")
    message = str(caught.value)
    assert message.startswith("model.float32.onnx failed parity on 16 inputs: the largest difference is 5.0e-01")
    assert caught.value.exit_status == 3


def test_the_record_is_written_beside_the_file_and_reads_back(tmp_path):
    model = tmp_path / "model.int8-x86-vnni.onnx"
    record = compare(logits, lambda x: logits(x) * np.nan, INPUTS, batches=[1], tolerance=None)
    path = record.write(model)
    assert path == record_path(model) == tmp_path / "model.int8-x86-vnni.parity.json"
    assert Parity.model_validate_json(path.read_text()) == record
