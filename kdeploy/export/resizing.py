"""Images of any size: the graph resizes them itself, as training did."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from kdeploy.errors import UserError
from kdeploy.quantize.files import opset_version

INPUT = "images"
_FIRST_OPSET = 18
"""With antialiasing and `axes`."""


def prepend_resize(model: ModelProto) -> ModelProto:
    """The graph with its height and width left open: `images`, uint8 `[batch, height, width, C]`, resized in front.

    Bilinear, antialiased where it shrinks, on uint8, whole images: what `kdeploy.sources` does with Pillow. The filter
    leaves out what lies beyond the border (`exclude_outside`), as Pillow and torch do; without it the pixels along the
    border differ visibly. With it, ONNX Runtime's pixels are at most one of 255 off Pillow's (of noise one
    in a thousand is, of JPEG files of flat colours none to an eighth, by the size).

    Raises UserError for a graph in operators older than opset 18, whose Resize has no such filter.
    """
    opset = opset_version(model)
    if opset < _FIRST_OPSET:
        raise UserError(
            f"Images of any size need opset {_FIRST_OPSET}, whose Resize is antialiased, and the graph is written in "
            f"{opset}: leave --size resize out, or raise --opset."
        )
    resized = ModelProto()
    resized.CopyFrom(model)
    graph = resized.graph
    images = graph.input[0]
    _, height, width, _ = images.type.tensor_type.shape.dim
    sizes = numpy_helper.from_array(np.array([height.dim_value, width.dim_value], np.int64), "preprocessing/sizes")
    node = helper.make_node(
        "Resize",
        [INPUT, "", "", sizes.name],
        ["preprocessing/resized"],
        name="preprocessing/Resize",
        axes=[1, 2],
        mode="linear",
        antialias=1,
        exclude_outside=1,
    )
    for taker in graph.node:
        for at, name in enumerate(taker.input):
            if name == INPUT:
                taker.input[at] = node.output[0]
    graph.node.insert(0, node)
    graph.initializer.append(sizes)
    height.dim_param, width.dim_param = "height", "width"
    return resized
