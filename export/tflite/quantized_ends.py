"""Inputs and outputs of a file that are kept as its operators have them, quantized."""

from __future__ import annotations

from collections.abc import Collection

import flatbuffers
from tensorflow.lite.python import schema_py_generated as schema

_OPERATORS = schema.BuiltinOperator


def keep_quantized(data: bytes, names: Collection[str]) -> bytes:
    """A .tflite file without the operators that only change the type of some inputs and outputs.

    The converter gives all inputs of a file one type, and all outputs. What is handed from file to file would else be
    quantized by each file that gets it, though it comes quantized.

    Args:
      data: a .tflite file with one subgraph and one signature.
      names: those inputs and outputs, by their names in the signature; each is read by QUANTIZE alone, or made by
        DEQUANTIZE or QUANTIZE, or is as it should be already.

    Returns:
      the file, whose inputs and outputs of these names have the type, scale and zero point that its operators use.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(data, 0))
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    kept = []
    inputs = {entry.tensorIndex: entry for entry in signature.inputs if entry.name.decode() in names}
    outputs = {entry.tensorIndex: entry for entry in signature.outputs if entry.name.decode() in names}
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        read, made = operator.inputs[0], operator.outputs[0]
        if kind == _OPERATORS.QUANTIZE and read in inputs:
            inputs[read].tensorIndex = made
            graph.inputs = [made if place == read else place for place in graph.inputs]
        elif kind in (_OPERATORS.QUANTIZE, _OPERATORS.DEQUANTIZE) and made in outputs:
            outputs[made].tensorIndex = read
            graph.outputs = [read if place == made else place for place in graph.outputs]
        else:
            kept.append(operator)
    graph.operators = kept
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
