"""A verification as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from export.proof.judges import Judge
from export.proof.records import Verification
from fusion.base import columns
from paradis_tf.evaluation.live_subsets import means_by_left, text_form


def render(verification: Verification, judge: Judge, slices: bool) -> str:
    """The fused switches, with all devices, with some missing, and that in the mean over which ones; with `slices` each
    slice file before them."""
    texts = [_slices(verification, judge)] if slices else []
    texts.append(_switches(verification, judge))
    if any(len(subsets) > 1 for subsets in verification.live.values()):
        texts += [_live(verification, judge), _left(verification, judge)]
    return "\n" + "\n\n".join(texts) + "\n"


def _slices(verification: Verification, judge: Judge) -> str:
    header = ("switch", "device", "precision", "runtime", "error", "of", "quanta", "from tflite-runtime", "operators")
    rows = [
        (
            check.switch,
            check.device,
            check.precision,
            check.runtime,
            f"{check.error:.2g}",
            f"{check.spread:.3g}",
            "" if check.quanta is None else f"{check.quanta:.1f}",
            f"{check.runtime_quanta:.2g}",
            ", ".join(check.operators),
        )
        for check in verification.slices
    ]
    return (
        f"slices, {judge.count} test images: largest difference of an output from Keras, as a value, of the range of "
        "its outputs,\nand in quanta, the steps of the file's output; from tflite-runtime in quanta (int8) or as a "
        "value\n" + columns.render(header, rows)
    )


def _switches(verification: Verification, judge: Judge) -> str:
    name = _name(judge)
    header = ("switch", "precision", "runtime", judge.agreement_unit, f"Keras {name}", name)
    rows = [
        (
            check.switch,
            check.precision,
            check.runtime,
            f"{check.agreement:.2f}",
            _text(judge, check.float_score),
            _text(judge, check.score),
        )
        for check in verification.switches
    ]
    return f"fused switches, {judge.count} test images\n{columns.render(header, rows)}"


def _live(verification: Verification, judge: Judge) -> str:
    precisions: Sequence[str] = list(dict.fromkeys(check.precision for check in verification.switches))
    rows = []
    for switch, subsets in verification.live.items():
        for subset in subsets[1:]:
            exported = [_text(judge, subset["exported"][precision]) for precision in precisions]
            devices = text_form(subset["devices"], len(subsets[0]["devices"]))
            rows.append((switch, devices, _text(judge, subset["float"]), *exported))
    header = ("switch", "devices that answer", "Keras", *precisions)
    return f"{_name(judge)} with devices missing, files on tflite-runtime\n{columns.render(header, rows)}"


def _left(verification: Verification, judge: Judge) -> str:
    means = {
        (switch, of): means_by_left(
            {tuple(subset["devices"]): {"Keras": subset["float"], **subset["exported"]}[of] for subset in subsets},
            len(subsets[0]["devices"]),
        )
        for switch, subsets in verification.live.items()
        if len(subsets) > 1
        for of in ("Keras", *subsets[0]["exported"])
    }
    numbers = sorted({left for found in means.values() for left in found}, reverse=True)
    rows = [
        (*of, *(_text(judge, found[left]) if left in found else "" for left in numbers)) for of, found in means.items()
    ]
    header = ("switch", "of", *(f"{left} left" for left in numbers))
    title = f"{_name(judge)}, the mean over the sets with so many devices left"
    return f"{title}\n{columns.render(header, rows, left=(0, 1))}"


def _name(judge: Judge) -> str:
    return "accuracy (%)" if judge.metric == "accuracy" else "PSNR-Y (dB)"


def _text(judge: Judge, score: float) -> str:
    return f"{judge.per_unit * score:.2f}"
