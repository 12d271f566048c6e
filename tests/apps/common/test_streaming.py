"""Folders and .npz files read a batch at a time, rows and images written so that a stop loses nothing."""

import gc
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from apps.common.streaming import FolderSource, Job, NpzOut, NpzSource, PngOut, Records, images_out, open_source
from core_models.errors import UserError

GREY, COLOUR = (1, 5, 4), (3, 5, 4)


def levels(n=7, shape=GREY, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def save_png(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(path)


def gathered(source, size=3, start=0):
    batches = list(source.batches(size, start))
    return [name for batch in batches for name in batch.names], torch.cat([batch.x for batch in batches]).numpy()


def written(x, dtype, layout):
    rows = {"nhw": x[:, 0], "nchw": x, "nhwc": x.transpose(0, 2, 3, 1)}[layout]
    return (rows / 255).astype(dtype) if np.dtype(dtype).kind == "f" else rows.astype(dtype)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["u1", "i8", "f2", "f4", ">f8"])
@pytest.mark.parametrize("layout,shape", [("nhw", GREY), ("nchw", GREY), ("nhwc", GREY), ("nchw", COLOUR)])
def test_an_array_comes_back_from_any_row_on_and_goes_out_as_it_came(tmp_path, save, dtype, layout, shape):
    x = levels(8, shape)
    save(tmp_path / "in.npz", x=written(x, dtype, layout), y=np.arange(8))
    source = open_source(tmp_path / "in.npz", shape)
    assert isinstance(source, NpzSource) and len(source) == 8
    for start in (0, 3, 6):
        names, found = gathered(source, 3, start)
        np.testing.assert_array_equal(found, x[start:])
        assert names == [str(i) for i in range(start, 8)]
    out = NpzOut(tmp_path / "out.npz", source)
    for batch in source.batches(3):
        out.write(batch, batch.x)
    out.finish([])
    with np.load(tmp_path / "out.npz") as loaded:
        kept = loaded["x"]
        np.testing.assert_array_equal(kept, written(x, dtype, layout))
        assert kept.dtype == np.dtype(dtype) and loaded["y"].tolist() == list(range(8))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.npz", "out.npz"]


def test_a_layout_that_fits_in_two_ways_is_asked_for(tmp_path):
    x = levels(2, (3, 3, 3))
    np.savez(tmp_path / "two.npz", x=x)
    with pytest.raises(UserError, match="nchw and as nhwc: add a string layout"):
        NpzSource(tmp_path / "two.npz", (3, 3, 3))
    np.savez(tmp_path / "said.npz", x=x.transpose(0, 2, 3, 1), layout="nhwc")
    np.testing.assert_array_equal(gathered(NpzSource(tmp_path / "said.npz", (3, 3, 3)))[1], x)


def test_booleans_are_black_and_white(tmp_path):
    np.savez(tmp_path / "in.npz", x=levels()[:, 0] > 127)
    source = NpzSource(tmp_path / "in.npz", GREY)
    np.testing.assert_array_equal(gathered(source)[1], 255 * (levels() > 127))
    assert NpzOut(tmp_path / "out.npz", source)._dtype == np.uint8


def bad(change, dtype=np.float32):
    x = (levels() / 255).astype(dtype) if np.dtype(dtype).kind == "f" else levels().astype(dtype)
    return change(x)


def put(value):
    def change(x):
        x[5, 0, 2, 1] = value
        return x

    return change


@pytest.mark.parametrize(
    "x,message",
    [
        (bad(put(np.nan)), r"x: expected floats in \[0, 1\], got nan in image 5: take those images out"),
        (np.full_like(bad(put(0)), np.nan), r"got nan in image 0: take those images out"),
        (bad(put(1.5)), r"got 1\.5 in image 5: rescale or clip them into \[0, 1\]"),
        (levels().astype(np.float32), r"got \d+\.0 in image 0: divide by 255"),
        (bad(put(-0.1)), r"got -0\.1\d* in image 5: rescale"),
        (bad(put(0.5)), r"8-bit images, multiples of 1/255, got 0\.5 in image 5: round them"),
        (bad(put(256), np.int16), "integers from 0 to 255, got 256 in image 5"),
        (bad(put(-1), np.int64), "got -1 in image 5"),
        (levels().astype("c8"), "expected integers 0..255 or floats"),
        (levels()[:, :, :4], r"expected x of shape \(n, 1, 5, 4\) or .*, got \(7, 1, 4, 4\): resize them to 5 x 4"),
        (levels().reshape(7, 20), r"expected x of shape .*, got \(7, 20\): reshape them to \(n, 1, 5, 4\)"),
        (levels().transpose(0, 1, 3, 2).copy(), r"got \(7, 1, 4, 5\): transpose them to \(n, 1, 5, 4\)"),
        (levels(7, COLOUR), r"got \(7, 3, 5, 4\): convert them to grey"),
        (levels()[:0], "expected images in x, got none"),
        (np.asfortranarray(levels()), "Fortran order"),
        (np.array([[None]]), "Python objects"),
    ],
)
def test_a_bad_array_is_refused_on_one_line_before_anything_is_done(tmp_path, x, message):
    np.savez(tmp_path / "in.npz", x=x)
    with pytest.raises(UserError, match=message) as refused:
        NpzSource(tmp_path / "in.npz", GREY, chunk=2)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_is_no_whole_npz_is_refused(tmp_path, save):
    path = tmp_path / "in.npz"
    with pytest.raises(UserError, match="found nothing at"):
        open_source(path, GREY)
    save(path, images=levels())
    with pytest.raises(UserError, match="expected an array x, found images"):
        open_source(path, GREY)
    save(path, x=levels(400))
    data = bytearray(path.read_bytes())
    for broken in (data[:5000], b"no archive", data[:3000] + bytes(200) + data[3200:]):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=r"expected a whole \.npz"):
            open_source(path, GREY)
    np.save(tmp_path / "single.npy", levels())
    with pytest.raises(UserError, match=r"expected a whole \.npz"):
        open_source(tmp_path / "single.npy", GREY)
    save_png(tmp_path / "one.png", levels()[0])
    with pytest.raises(UserError, match="single image"):
        open_source(tmp_path / "one.png", GREY)


@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path, shape):
    names = ["a/1.png", "a/b/0.png", "c.png", "d e.png", "é.png"]
    x = levels(5, shape)
    for name, image in zip(reversed(names), x[::-1], strict=True):
        save_png(tmp_path / name, image)
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source(tmp_path, shape)
    assert isinstance(source, FolderSource) and len(source) == 5
    for start in (0, 2, 4):
        found, read = gathered(source, 2, start)
        assert found == names[start:]
        np.testing.assert_array_equal(read, x[start:])
    before = source.identity()
    save_png(tmp_path / "c.png", np.zeros_like(x[0]))
    assert open_source(tmp_path, shape).identity() != before


def test_grey_files_serve_a_model_of_colours_but_not_the_other_way_round(tmp_path):
    save_png(tmp_path / "grey.png", levels()[0])
    read = gathered(FolderSource(tmp_path, COLOUR))[1]
    np.testing.assert_array_equal(read[0], np.repeat(levels()[0], 3, 0))
    save_png(tmp_path / "colour.png", levels(1, COLOUR)[0])
    with pytest.raises(UserError, match=r"colour\.png: expected a grey image"):
        FolderSource(tmp_path, GREY)


def test_a_folder_that_does_not_fit_is_refused_before_anything_is_done(tmp_path):
    with pytest.raises(UserError, match="expected PNG, JPEG or WebP images, found none"):
        open_source(tmp_path, GREY)
    with pytest.raises(UserError, match="expected a model of images"):
        open_source(tmp_path, (20,))
    save_png(tmp_path / "0.png", levels()[0])
    save_png(tmp_path / "1.png", levels()[0][:, :4])
    with pytest.raises(UserError, match=r"1 of the 2 images .* the first is .*1\.png: expected .* 5 x 4 .* got 4 x 4"):
        open_source(tmp_path, GREY)
    (tmp_path / "0.png").unlink()
    with pytest.raises(UserError, match=rf"^{tmp_path}/1\.png: expected .* got 4 x 4: resize"):
        open_source(tmp_path, GREY)
    for name, array in (("deep.png", np.zeros((5, 4), np.uint16)), ("1.png", levels()[0][0])):
        Image.fromarray(array).save(tmp_path / name)
    with pytest.raises(UserError, match=r"deep\.png: expected 8 bits per channel"):
        open_source(tmp_path, GREY)


def test_files_that_can_not_be_read_are_named_and_passed_over(tmp_path):
    x = levels(6)
    for i, image in enumerate(x):
        save_png(tmp_path / f"{i}.png", image)
    (tmp_path / "1.png").write_bytes(b"")
    (tmp_path / "4.png").write_bytes((tmp_path / "4.png").read_bytes()[:55])
    batches = list(open_source(tmp_path, GREY).batches(3))
    np.testing.assert_array_equal(torch.cat([batch.x for batch in batches]).numpy(), x[[0, 2, 3, 5]])
    assert [list(batch.faults) for batch in batches] == [[1], [1]]
    assert "1.png: expected a whole PNG" in batches[0].faults[1]


def test_png_files_keep_names_and_folders(tmp_path):
    x = levels(3, COLOUR)
    names = ["a/1.png", "a/b.c.webp", "d.png"]
    for name, image in zip(names, x, strict=True):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path, lossless=True)
    source = open_source(tmp_path / "in", COLOUR)
    out = images_out("png", tmp_path / "out", "purified", source)
    for batch in source.batches(2):
        out.write(batch, 255 - batch.x)
    found = sorted(path.relative_to(out.path).as_posix() for path in out.path.rglob("*.png"))
    assert found == ["a/1.png", "a/b.c.png", "d.png"]
    np.testing.assert_array_equal(gathered(open_source(out.path, COLOUR))[1], 255 - x)
    save_png(tmp_path / "in" / "a" / "b.c.png", x[0])
    with pytest.raises(UserError, match=r"a/b\.c\.png and a/b\.c\.webp would both be written to a/b\.c\.png"):
        PngOut(tmp_path / "other", open_source(tmp_path / "in", COLOUR))
    with pytest.raises(UserError, match="format png or npz, got 'gif'"):
        images_out("gif", tmp_path, "purified", source)


def test_a_folder_goes_into_one_npz_with_names_and_the_same_bytes_each_time(tmp_path):
    x = levels(3)
    for name, image in zip(["0.png", "a/long name.png", "z.png"], x, strict=True):
        save_png(tmp_path / "in" / name, image)
    source = open_source(tmp_path / "in", GREY)
    for out in ("one.npz", "two.npz"):
        writer = NpzOut(tmp_path / out, source)
        for batch in source.batches(2):
            writer.write(batch, batch.x)
        writer.finish(source.names(0, 3))
    with np.load(tmp_path / "one.npz", allow_pickle=False) as loaded:
        np.testing.assert_array_equal(loaded["x"], x)
        assert loaded["names"].tolist() == ["0.png", "a/long name.png", "z.png"]
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.npz") as archive:
        assert archive.testzip() is None


def test_rows_of_a_stopped_job_are_cut_back_to_whole_batches(tmp_path):
    path, columns = tmp_path / "rows.csv", ("image", "value")
    rows = [[f'{i}, "odd"\nname', i] for i in range(7)]
    Records(path, columns).append(rows)
    whole = path.read_bytes()
    assert [row["value"] for row in Records(path, columns)] == list("0123456")
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        complete = max(sum(end <= cut for end in ends) - 1, 0)
        expected = 7 if complete == 7 else complete - complete % 3
        records = Records(path, columns)
        assert records.rewind(3, 7) == expected
        records.append(rows[expected:])
        assert path.read_bytes() == whole
    with pytest.raises(UserError, match="at most 6 rows, got 7"):
        Records(path, columns).rewind(3, 6)
    with pytest.raises(UserError, match="expected the columns image, other"):
        Records(path, ("image", "other")).rewind(3, 7)
    assert Records(tmp_path / "none.csv", columns).rewind(3, 7) == 0


@pytest.mark.parametrize("given,form", [("npz", "npz"), ("compressed", "npz"), ("folder", "npz"), ("npz", "png")])
def test_memory_does_not_grow_with_the_number_of_images(tmp_path, given, form):
    shape, counts, peaks = (1, 100, 100), (50, 50, 150), []
    for i, count in enumerate(counts):  # the first pass pays for what is imported and cached
        folder, x = tmp_path / str(i), levels(count, shape)
        folder.mkdir()
        if given == "folder":
            for j, image in enumerate(x):
                save_png(folder / "in" / f"{j}.png", image)
        else:
            (np.savez if given == "npz" else np.savez_compressed)(folder / "in.npz", x=x)
        del x
        gc.collect()  # so that buffers held in cycles are freed at the same places each time
        tracemalloc.start()
        source = open_source(folder / ("in" if given == "folder" else "in.npz"), shape)
        job = Job(source, folder / "out", {}, (), batch_size=5, description="testing")
        done = job.run(lambda x: ([{"status": "ok"}] * len(x), 255 - x), images_out(form, folder / "out", "x", source))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert done.images == done.processed == count
    # 100 more images are a million bytes; their names may cost 400 each
    assert peaks[2] < peaks[1] + 60_000
