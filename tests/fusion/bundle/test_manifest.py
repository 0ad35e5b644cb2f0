"""The manifest reader: what a good bundle gives, and one sentence for each way it can be bad."""

import pytest

from fusion.base.program import UserError
from fusion.bundle import manifest


def test_reads_a_bundle(bundle):
    loaded = manifest.load(bundle)
    assert (loaded.name, loaded.shape) == ("tiny", (8, 6, 3))
    assert loaded.labels == ("ant", "bee", "cat", "dög")
    assert [entry.switch for entry in loaded.switches] == ["1.0", "0.5+0.5", "0.75+0.25"]
    slice_ = loaded.find_switch("0.5+0.5").slices[1]
    assert (slice_.device, slice_.start, slice_.model) == (1, "0.5", "tiny-0.5_0.5-1")
    file = slice_.files["int8"]
    assert (file.input.dtype, file.output.dtype) == ("uint8", "int8")
    assert file.output.scale is not None and slice_.files["float32"].output.scale is None
    assert len(loaded.read(file)) == file.bytes
    assert loaded.samples[2].file == "samples/2.png"
    images, outputs = loaded.read_samples()
    # Of five slices, float32, int8 and int8 as ARM rounds.
    assert (images.shape, len(outputs)) == ((4, 8, 6, 3), 15)
    assert (outputs["tiny-1.0-0/int8"].shape, outputs["tiny-1.0-0/int8"].dtype.name) == ((4, 4), "int8")


def test_a_byte_order_mark_is_no_part_of_it(bundle, altered):
    folder = altered(lambda data: None)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text, encoding="utf-8-sig")
    assert manifest.load(folder).model_id == manifest.load(bundle).model_id
    (folder / "manifest.json").write_text(text, encoding="utf-16")
    with pytest.raises(UserError, match="manifest.json' is UTF-16 text; legal: UTF-8, "):
        manifest.load(folder)


def test_reads_accuracies(bundle, altered):
    found = manifest.load(altered(accuracy)).switches[1].accuracy
    assert found is not None and found["live_subsets"][2]["devices"] == [0, 1]


def test_tells_accuracies_by_the_slices_that_answer(altered):
    def change(data):
        shares = {(0,): 0.5, (1,): 0, (0, 1): 0.75}
        live = [
            {"devices": list(devices), "float": 1, "exported": {"int8": share, "float32": share + 0.125}}
            for devices, share in shares.items()
        ]
        accuracy(data, live_subsets=live)

    unverified, entry, _ = manifest.load(altered(change)).switches
    assert entry.accuracies("int8") == {frozenset({0}): 0.5, frozenset({1}): 0.0, frozenset({0, 1}): 0.75}
    assert entry.accuracies("float32") == {frozenset({0}): 0.625, frozenset({1}): 0.125, frozenset({0, 1}): 0.875}
    assert unverified.accuracies("int8") == {}


def test_reads_a_calibration(bundle, altered):
    assert not any(entry.early for entry in manifest.load(bundle).switches)
    assert not manifest.load(altered(lambda d: d["switches"][1].update(early=None))).switches[1].early
    (found,) = manifest.load(altered(early)).switches[1].early.values()
    assert found == {frozenset({0}): 0.5, frozenset({1}): 1.5}


def test_refuses_a_calibration_of_super_resolution(altered):
    def change(data):
        file = {"path": "slices/tail.tflite", "sha256": "0" * 64, "bytes": 1, "arena_bytes": 1}
        data["fusion"] |= {"scale": 2, "tail": file}
        data.update(task="super_resolution", output={"name": "residual", "shape": [8, 6, 12]}, samples=[])
        for slice_ in [slice_ for entry in data["switches"] for slice_ in entry["slices"]]:
            for described in slice_["files"].values():
                described["output"]["name"] = "residual"

    assert manifest.load(altered(change)).task.name == "super_resolution"
    with pytest.raises(UserError, match=r"'early' is \[\"int8\"\]; legal: null, since only classifiers answer early"):
        manifest.load(altered(lambda data: change(data) or early(data)))


@pytest.mark.parametrize("text", ["0.5+0.5", "2x0.5", "1/2+1/2"])
def test_finds_a_switch_however_written(bundle, text):
    assert manifest.load(bundle).find_switch(text).switch == "0.5+0.5"


def test_finds_a_switch_in_any_order(bundle):
    assert manifest.load(bundle).find_switch("0.25+0.75").switch == "0.75+0.25"


@pytest.mark.parametrize("text", ["0.5", "", "x", "1/0", "0.25+0.5", "9999999x0.5", "1e99999999", "nan"])
def test_lists_the_legal_switches(bundle, text):
    with pytest.raises(UserError) as error:
        manifest.load(bundle).find_switch(text)
    assert f"switch {text!r} is not in bundle" in str(error.value)
    assert "legal: 1.0, 0.5+0.5, 0.75+0.25." in str(error.value)


def test_lists_the_legal_precisions(bundle):
    with pytest.raises(UserError, match="'int4' is not in bundle .* legal: int8, float32"):
        manifest.load(bundle).check_precision("int4")


def file_of(data):
    return data["switches"][0]["slices"][0]["files"]["int8"]


def accuracy(data, **changes):
    """Verifies a switch of a manifest as export.verify does; then changes that."""
    scores = {"float": 0.9, "exported": {"int8": 0.9, "float32": 0.9}}
    live = [{"devices": list(devices), **scores} for devices in ((0,), (1,), (0, 1))]
    entry = {"part": "test", "images": 9, "metric": "accuracy", **scores, "live_subsets": live}
    data["switches"][1]["accuracy"] = entry | changes


def early(data, change=lambda early: None, switch=1):
    """Calibrates a switch of a manifest as export.calibrate does; then `change` changes that of int8."""
    slices = data["switches"][switch]["slices"]
    margins = [{"devices": [device], "margin": device + 0.5} for device in range(len(slices))]
    hashes = [slice_["files"]["int8"]["sha256"] for slice_ in slices]
    entry = {"files": hashes, "images": 500, "max_drop": 0.005, "margins": margins}
    change(entry)
    data["switches"][switch]["early"] = {"int8": entry}


CHANGES = {
    "newer schema": (
        lambda d: d.update(schema_version=3),
        "bundle schema 3 is newer than this runner's 2: ",
    ),
    "schema 1": (lambda d: d.update(schema_version=1), "'schema_version' is 1; legal: 2"),
    "not an object": (lambda d: [1], "is [1]; legal: an object"),
    "no name": (lambda d: d.pop("name") and None, "has no key 'name'"),
    "bad name": (lambda d: d.update(name="a/b"), "'name' is \"a/b\"; legal: [A-Za-z0-9._-]+"),
    "id": (lambda d: d.update(model_id="12"), "'model_id' is \"12\""),
    "task": (lambda d: d.update(task="chess"), "legal: classification or super_resolution"),
    "rule": (lambda d: d["fusion"].update(rule="vote"), "fusion: 'rule' is \"vote\"; legal: sum"),
    "classes": (lambda d: d["output"].update(shape=[5]), "output: 'shape' is [5]; legal: [4], the number of labels"),
    "output name": (lambda d: d["output"].update(name="scores"), "'name' is \"scores\"; legal: logits"),
    "arena": (lambda d: file_of(d).update(arena_bytes=-1), "'arena_bytes' is -1; legal: 0 or more"),
    "input dtype": (lambda d: d["input"].update(dtype="float32"), "legal: uint8"),
    "input rank": (lambda d: d["input"].update(shape=[8, 6]), "legal: a list of 3"),
    "input size": (lambda d: d["input"].update(shape=[8, 0, 3]), "integers of 1 or more"),
    "boolean size": (lambda d: d["input"].update(shape=[8, True, 3]), "legal: an integer"),
    "no labels": (lambda d: d.update(labels=[]), "a list of one or more"),
    "switches type": (lambda d: d.update(switches={}), "'switches' is {}; legal: a list"),
    "no switches": (lambda d: d.update(switches=[]), "'switches' is []; legal: one or more switches"),
    "not from 0": (
        lambda d: d["switches"][1]["slices"][0].update(start="0.25"),
        "switches[1]: slices[0]: 'start' is \"0.25\"; legal: 0, since it is the first",
    ),
    "gap": (
        lambda d: d["switches"][1]["slices"][1].update(start="0.75"),
        "switches[1]: slices[1]: 'start' is \"0.75\"; legal: 0.5, where the slice before it ends",
    ),
    "empty slice": (
        lambda d: d["switches"][1]["slices"][1].update(stop="0.5"),
        "slices[1]: 'stop' is \"0.5\"; legal: more than 0.5, and 1 at most",
    ),
    "beyond the width": (
        lambda d: d["switches"][1]["slices"][1].update(stop="3/2"),
        "slices[1]: 'stop' is \"3/2\"; legal: more than 0.5, and 1 at most",
    ),
    "no bound": (
        lambda d: d["switches"][1]["slices"][1].update(stop="1/0"),
        "slices[1]: 'stop' is \"1/0\"; legal: a part of the full width",
    ),
    "other widths": (
        lambda d: d["switches"][2].update(switch="0.25+0.75"),
        "'switch' is \"0.25+0.75\"; legal: 0.75+0.25, the widths of its slices",
    ),
    "no slices": (lambda d: d["switches"][0].update(slices=[]), "one slice per device"),
    "device order": (
        lambda d: d["switches"][1]["slices"][1].update(device=0),
        "switches[1]: slices[1]: 'device' is 0; legal: 1",
    ),
    "model twice": (
        lambda d: d["switches"][1]["slices"][1].update(model="tiny-0.5_0.5-0"),
        "model 'tiny-0.5_0.5-0' stands twice",
    ),
    "no such precision": (
        lambda d: d["switches"][0]["slices"][0]["files"].pop("int8") and None,
        "files has no key 'int8'",
    ),
    "madds": (lambda d: d["switches"][0].update(madds=-1), "legal: 0 or more"),
    "escape": (lambda d: file_of(d).update(path="../x.tflite"), "leads outside the bundle"),
    "absolute": (lambda d: file_of(d).update(path="/etc/passwd"), "leads outside the bundle"),
    "sample escape": (lambda d: d["samples"][0].update(file="../0.png"), "leads outside"),
    "sample label": (lambda d: d["samples"][0].update(label=4), "legal: 0 or 1 or 2 or 3"),
    "outputs escape": (lambda d: d["sample_outputs"].update(path="../x.npz"), "leads outside"),
    "output dtype": (
        lambda d: file_of(d)["output"].update(dtype="int4"),
        "int8 or uint8 or float32",
    ),
    "scale without zero point": (
        lambda d: file_of(d)["output"].update(zero_point=None),
        "'zero_point' is null",
    ),
    "no scale": (
        lambda d: file_of(d)["output"].update(scale=None, zero_point=None),
        "since the tensor is int8",
    ),
    "scale": (lambda d: file_of(d)["output"].update(scale=0), "legal: a positive number"),
    "scale beyond float32": (lambda d: file_of(d)["output"].update(scale=1e39), "legal: a positive number"),
    "huge scale": (lambda d: file_of(d)["output"].update(scale=10**400), "legal: a number of 64 bits"),
    "huge arena": (lambda d: file_of(d).update(arena_bytes=2**63), "legal: a number of 64 bits"),
    "huge zero point": (lambda d: file_of(d)["output"].update(zero_point=-(10**400)), "legal: a number of 64 bits"),
    "NUL in a path": (lambda d: file_of(d).update(path="a\0b"), "legal: a string of Unicode characters without NUL"),
    "half a character": (lambda d: d["labels"].__setitem__(0, "\ud800"), "a string of Unicode characters"),
    "unknown precision": (lambda d: d.update(precisions=["int4"]), "legal: different ones of float32, float16"),
    "early is no object": (
        lambda d: d["switches"][1].update(early=[1]),
        "switches[1]: 'early' is [1]; legal: an object",
    ),
    "early of another precision": (
        lambda d: d["switches"][1].update(early={"float16": {}}),
        "switches[1]: 'early' is \"float16\"; legal: of the bundle's precisions, int8, float32",
    ),
    "early of other files": (
        lambda d: early(d, lambda e: e["files"].reverse()),
        "early: int8: 'files' is [",
    ),
    "early without files": (lambda d: early(d, lambda e: e.pop("files")), "early: int8 has no key 'files'"),
    "early of one slice": (lambda d: early(d, switch=0), "legal: some, not all, of 0 to 0 in ascending order"),
    "early of a device": (
        lambda d: early(d, lambda e: e["margins"][1].update(devices=[2])),
        "early: int8: margins[1]: 'devices' is [2]; legal: some, not all, of 0 to 1",
    ),
    "early of all devices": (lambda d: early(d, lambda e: e["margins"][1].update(devices=[0, 1])), "is [0, 1]; legal"),
    "early of no devices": (lambda d: early(d, lambda e: e["margins"][1].update(devices=[])), "a list of one or more"),
    "early twice": (lambda d: early(d, lambda e: e["margins"][1].update(devices=[0])), "every set of devices once"),
    "early below nothing": (
        lambda d: early(d, lambda e: e["margins"][0].update(margin=-0.1)),
        "margins[0]: 'margin' is -0.1; legal: a number from 0 to",
    ),
    "early is no number": (lambda d: early(d, lambda e: e["margins"][0].update(margin=float("nan"))), "is NaN; legal"),
    "early text": (lambda d: early(d, lambda e: e["margins"][0].update(margin="1")), 'is "1"; legal: a number'),
    "early drop": (
        lambda d: early(d, lambda e: e.update(max_drop=5)),
        "'max_drop' is 5.0; legal: a number from 0 to 1",
    ),
    "early images": (lambda d: early(d, lambda e: e.update(images=-1)), "'images' is -1; legal: 0 or more"),
    "no architecture": (lambda d: d.pop("architecture") and None, "has no key 'architecture'"),
    "no compressed size": (lambda d: file_of(d).pop("compressed_bytes") and None, "has no key 'compressed_bytes'"),
    "live subsets": (
        lambda d: accuracy(d, live_subsets=3),
        "switches[1]: accuracy: 'live_subsets' is 3; legal: a list",
    ),
    "live devices": (
        lambda d: accuracy(d, live_subsets=[{"devices": [2], "float": 0.5, "exported": {"int8": 0, "float32": 0}}]),
        "live_subsets[0]: 'devices' is [2]; legal: some of 0 to 1 in ascending order",
    ),
    "accuracy of a precision": (lambda d: accuracy(d, exported={"int8": 0.5}), "exported has no key 'float32'"),
    "accuracy is no number": (lambda d: accuracy(d, float=float("nan")), "accuracy: 'float' is NaN; legal: a number"),
    "accuracy is empty": (lambda d: d["switches"][0].update(accuracy={}), "accuracy has no key 'part'"),
    "precision twice": (lambda d: d.update(precisions=["int8", "int8"]), "legal: different ones of float32, float16"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_refuses_manifest(altered, change, said):
    folder = altered(change)
    with pytest.raises(UserError) as error:
        manifest.load(folder)
    assert said in str(error.value)


def test_refuses_what_is_no_bundle(tmp_path):
    for name in ("none", "a" * 300):
        with pytest.raises(UserError, match="is not a folder"):
            manifest.load(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        manifest.load(tmp_path)
    for text in ("{", "[" * 100_000):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match="is not JSON"):
            manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "cannot be read: No such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "its manifest says"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "has SHA-256"),
    ],
    ids=["missing", "truncated", "altered"],
)
def test_refuses_a_damaged_file(altered, damage, said):
    loaded = manifest.load(altered(lambda data: None))
    file = loaded.switches[0].slices[0].files["int8"]
    damage(loaded.path(file.path))
    with pytest.raises(UserError) as error:
        loaded.read(file)
    assert said in str(error.value) and "0.int8.tflite" in str(error.value)


def test_default_folder_is_the_bundle_around_the_runner(tmp_path, monkeypatch):
    assert manifest.default_folder() is None
    (tmp_path / "manifest.json").touch()
    monkeypatch.setattr(manifest, "__file__", str(tmp_path / "fusion" / "bundle" / "manifest.py"))
    assert manifest.default_folder() == str(tmp_path)
