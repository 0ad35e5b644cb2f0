"""Which images are asked about, what is made of them, and in which order answers come."""

import io
import itertools
import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from fusion.base.program import UserError
from fusion.images import reading as images
from fusion.predict import sources
from fusion.predict.parallel import in_order
from fusion.predict.sources import ImageSource, WatchedFolder


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def names(found):
    return [source.name for source in found]


def test_folders_are_searched_in_order(tmp_path):
    fill(tmp_path, "b/2.JPG", "b/10.png", "a/x.webp", "z.png", ".hidden.png", ".git/y.png", "readme.txt", "a/page.eps")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found, walks = sources.files(["first.txt", str(tmp_path)])
    inside = [os.path.relpath(name, tmp_path) for name in names(found)[1:]]
    assert names(found)[0] == "first.txt"
    assert inside == ["a/x.webp", "b/10.png", "b/2.JPG", "z.png"]
    assert [walk.left_out for walk in walks] == [{".txt": 1, ".eps": 1, "hidden": 2, "folder met before": 1}]


def test_linked_folders_are_searched_too(tmp_path):
    fill(tmp_path, "elsewhere/1.png", "in/0.png")
    (tmp_path / "in" / "more").symlink_to("../elsewhere")
    found, _ = sources.files([str(tmp_path / "in")])
    assert [os.path.basename(name) for name in names(found)] == ["0.png", "1.png"]
    watched = WatchedFolder(str(tmp_path / "in"))
    fill(tmp_path, "elsewhere/2.png")
    assert next(iter(watched)).name == str(tmp_path / "in" / "more" / "2.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_what_never_ends_is_no_image_of_a_folder(tmp_path):
    fill(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found, walks = sources.files([str(tmp_path)])
    assert [os.path.basename(name) for name in names(found)] == ["a.png", "gone.png"]
    assert walks[0].left_out == {"pipe or device": 1}


def test_a_folder_without_images_is_refused(tmp_path):
    fill(tmp_path, "readme.txt", ".hidden/1.png")
    with pytest.raises(UserError, match="has no images; legal: files ending in .*; it holds 1 .txt and 1 hidden.$"):
        sources.files([str(tmp_path)])


def test_lines_name_files():
    stream = io.BytesIO(b"a b.png\r\n\nc\xff.png\nlast.png")
    assert names(sources.lines(stream)) == ["a b.png", "c\udcff.png", "last.png"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "PPM", "TIFF", "WEBP"])
def test_an_image_is_no_list_of_files(kind):
    stream = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 10, 10)).save(stream, kind)
    with pytest.raises(UserError, match="standard input holds no file names; legal: .* with --stdin=image"):
        list(sources.lines(io.BytesIO(stream.getvalue())))


def test_one_image_of_a_stream(monkeypatch):
    assert sources.image(io.BytesIO(b"abc")) == ImageSource("-", b"abc")
    monkeypatch.setattr(sources, "MOST_BYTES", 2)
    with pytest.raises(UserError, match="holds more than . MB; legal: one image"):
        sources.image(io.BytesIO(b"abc"))


class Clock:
    """Stands in for the module `time`: each sleep is over at once, after the next of `steps` was taken."""

    def __init__(self, *steps):
        self.now, self.sleeps, self.steps = 5.0, [], list(steps)

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds
        if self.steps:
            self.steps.pop(0)()


@pytest.fixture
def clock(monkeypatch):
    """clock(*steps) -> the clock that `sources` goes by."""

    def put(*steps):
        monkeypatch.setattr(sources, "time", made := Clock(*steps))
        return made

    return put


def test_again_keeps_its_pace(clock):
    made = clock()
    found = sources.again([ImageSource("a"), ImageSource("b")], 2.0)
    assert names(next(found) for _ in range(4)) == ["a", "b", "a", "b"] and made.sleeps == [2.0]
    made.now += 0.5
    next(found)
    assert made.sleeps == [2.0, 1.5]
    # A round that took longer is followed at once.
    made.now += 9.0
    assert names(next(found) for _ in range(2)) == ["b", "a"] and made.sleeps == [2.0, 1.5, 0.0]


def test_watched_folder(tmp_path, clock):
    fill(tmp_path, "old.png")

    def change():
        (tmp_path / "old.png").write_bytes(b"changed")

    def replace():
        (tmp_path / "new.png").unlink()
        fill(tmp_path, "below/third.jpg")

    watched = iter(WatchedFolder(str(tmp_path)))
    fill(tmp_path, "new.png", "note.txt")
    made = clock()
    for step, name in ((None, "new.png"), (change, "old.png"), (replace, "below/third.jpg")):
        made.steps = [step] if step else []
        assert next(watched).name == str(tmp_path / name)


def test_a_watched_file_is_waited_for_until_it_is_whole(tmp_path, clock):
    path = tmp_path / "slow.png"

    def write():
        with path.open("ab") as stream:
            stream.write(b"x" * 100)

    watched = iter(WatchedFolder(str(tmp_path)))
    made = clock(*[write] * 10)
    assert next(watched).name == str(path)
    assert (path.stat().st_size, len(made.sleeps)) == (1000, 11)


def test_a_watched_folder_may_come_and_go(tmp_path, clock):
    folder = tmp_path / "in"
    with pytest.raises(UserError, match="cannot be read"):
        WatchedFolder(str(folder))
    folder.mkdir()
    watched = iter(WatchedFolder(str(folder)))
    clock(folder.rmdir, lambda: None, lambda: fill(folder, "a.png"))
    assert next(watched).name == str(folder / "a.png")


@pytest.mark.parametrize("workers", [1, 4])
def test_answers_come_in_order(workers):
    running, most, lock = [0], [0], threading.Lock()

    def work(number):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.001 * (7 - number % 7))
        with lock:
            running[0] -= 1
        if number == 5:
            raise KeyError(number)
        return number * number

    found = list(in_order(range(30), [work] * workers))
    assert [thing for thing, _ in found] == list(range(30))
    assert isinstance(found[5][1].exception(), KeyError)
    assert [future.result() for thing, future in found if thing != 5] == [n * n for n in range(30) if n != 5]
    assert most[0] <= workers


def test_an_endless_source_is_read_as_needed():
    taken, ahead = 0, []

    def endless():
        for number in itertools.count():
            ahead.append(number - taken)
            yield number

    found = in_order(endless(), [str, str])
    for number in range(200):
        assert next(found)[1].result() == str(number)
        taken += 1
    assert max(ahead) <= 2 * 2 + 1


def test_what_a_source_raises_comes_last():
    def broken():
        yield 1
        raise UserError("gone")

    found = in_order(broken(), [str])
    assert next(found)[1].result() == "1"
    with pytest.raises(UserError, match="gone"):
        next(found)


def saved(image, **options):
    stream = io.BytesIO()
    image.save(stream, options.pop("format", "PNG"), **options)
    return stream.getvalue()


@pytest.fixture
def ramp():
    """Red grows to the right, green downwards: 256 pixels wide, 128 high."""
    across = np.broadcast_to(np.arange(256), (128, 256))
    down = np.broadcast_to(np.arange(128)[:, np.newaxis] * 2, (128, 256))
    return Image.fromarray(np.stack([across, down, np.zeros_like(down)], -1).astype(np.uint8))


def test_stretch(ramp):
    found = images.read(saved(ramp), (32, 32, 3), images.STRETCH).astype(int)
    # Each pixel is about the mean of 8 x 4 ones.
    np.testing.assert_allclose(found[5, 1:-1, 0], np.arange(1, 31) * 8 + 3.5, atol=1)
    np.testing.assert_allclose(found[1:-1, 5, 1], np.arange(1, 31) * 8 + 3, atol=1)


def test_crop_takes_what_evaluation_takes(ramp):
    found = images.read(saved(ramp), (32, 32, 3), images.CROP).astype(int)
    # The centre square of 128 * 224 / 256 = 112 pixels: columns 72 to 183, rows 8 to 119, 3.5 a pixel.
    np.testing.assert_allclose(found[5, 1:-1, 0], 72 + np.arange(1, 31) * 3.5 + 1.25, atol=1)
    np.testing.assert_allclose(found[1:-1, 5, 1], (8 + np.arange(1, 31) * 3.5 + 1.25) * 2, atol=2)
    # A square that is hardly larger than the model gives all its pixels that it needs.
    np.testing.assert_array_equal(images.read(saved(ramp), (128, 128, 3), images.CROP), np.asarray(ramp)[:, 64:192])
    assert images.read(saved(ramp.resize((1, 9))), (32, 16, 3), images.CROP).shape == (32, 16, 3)


def test_pad(ramp):
    found = images.read(saved(ramp), (32, 32, 3), images.PAD)
    assert not found[:8].any() and not found[24:].any() and found[8:24, 1:].any(-1).all()


@pytest.mark.parametrize("resize", [images.STRETCH, images.CROP, images.PAD])
def test_the_models_size_stays_as_it_is(ramp, resize):
    small = ramp.resize((32, 16))
    np.testing.assert_array_equal(images.read(saved(small), (16, 32, 3), resize), np.asarray(small))


def test_other_modes_with_resize():
    def read(image, **options):
        return images.read(saved(image, **options), (2, 2, 3), images.STRETCH)[0, 0].tolist()

    assert read(Image.new("RGBA", (2, 2), (200, 100, 50, 0))) == [0, 0, 0]
    assert read(Image.new("RGBA", (2, 2), (200, 100, 50, 255))) == [200, 100, 50]
    assert read(Image.new("LA", (2, 2), (200, 255))) == [200, 200, 200]
    assert read(Image.new("1", (2, 2), 1)) == [255, 255, 255]
    assert read(Image.fromarray(np.full((2, 2), 0x8040, np.uint16))) == [128, 128, 128]
    assert read(Image.new("RGB", (2, 2), (1, 2, 3)).quantize(2)) == [1, 2, 3]
    assert read(Image.new("CMYK", (2, 2)), format="TIFF") == [255, 255, 255]


def test_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[0, 0] = 255
    stored = saved(Image.fromarray(pixels), exif=exif)
    found = images.read(stored, None, images.CROP)
    assert found.shape == (4, 2, 3) and found[0, 1].tolist() == [255] * 3
    for shape in (None, (4, 2, 3)):
        np.testing.assert_array_equal(images.read(stored, shape), found)
    with pytest.raises(UserError, match="is 2 x 4 pixels; legal: 4 x 2"):
        images.read(stored, (2, 4, 3))


def test_formats_that_are_not_looked_at(tmp_path):
    path = tmp_path / "page.png"
    Image.new("RGB", (4, 4)).save(path, "EPS")
    for source in (path, path.read_bytes()):
        with pytest.raises(UserError, match="is not an image that can be read"):
            images.read(source, None, images.CROP)


def test_a_list_of_names_may_begin_with_a_byte_order_mark():
    assert names(sources.lines(io.BytesIO(b"\xef\xbb\xbfa.png\r\nb.png\n"))) == ["a.png", "b.png"]
    for encoding in ("utf-16", "utf-16-be"):
        stream = io.BytesIO("\ufeffa.png\n".encode(encoding))
        with pytest.raises(UserError, match="standard input is UTF-16 text; legal: file names in UTF-8, one per line"):
            list(sources.lines(stream))
