"""One order of samples on any number of processes and threads, and from any step on."""

import hashlib
import pickle
from collections import Counter

import numpy as np
import pytest

from nkjax import skeleton as skeletons
from nkjax.data import augment, records, samples, streams
from tests.data_io import packed
from tests.data_io.test_samples import hand

LOOK = samples.Look((24, 32), (("weak", augment.WEAK), ("strong", augment.SAPIENS)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    rows = packed.drawn_rows(23)
    packed.write(folder, {"train": rows[:13], "unlabelled": rows[13:]})
    return folder


def both(folder, labelled=4, unlabelled=8, look=LOOK):
    manifest = records.read_manifest(folder)
    return {
        "labelled": streams.Stream(records.Rows(manifest, "train"), look, labelled),
        "unlabelled": streams.Stream(records.Rows(manifest, "unlabelled"), look, unlabelled),
    }


def take(iterator, count):
    taken = [next(iterator) for _ in range(count)]
    iterator.close()
    return taken


def leaves(tree, path=""):
    if isinstance(tree, dict):
        for key, value in sorted(tree.items()):
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, np.asarray(tree)


def digest(batch):
    text = hashlib.sha256()
    for path, leaf in leaves(batch):
        text.update(f"{path} {leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
    return text.hexdigest()


def woven(parts):
    """Put the slices of all processes together: row i of the batch is of process i % processes."""
    if isinstance(parts[0], dict):
        return {key: woven([part[key] for part in parts]) for key in parts[0]}
    return np.stack(parts, 1).reshape(-1, *parts[0].shape[1:])


@pytest.fixture(scope="module")
def expected(folder):
    return take(streams.endless(both(folder), seed=3, threads=1), 7)


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_the_same_bytes_for_any_processes_and_threads(
    folder, expected, processes, threads
):
    parts = [
        take(streams.endless(both(folder), seed=3, process=process, processes=processes,
                             threads=threads), 5)
        for process in range(processes)
    ]  # fmt: skip
    for step in range(5):
        batch = woven([part[step] for part in parts])
        assert digest(batch) == digest(expected[step])
    assert len({digest(batch) for batch in expected}) == len(expected)


@pytest.mark.parametrize(("step", "processes"), [(1, 1), (4, 1), (6, 2), (3, 4)])
def test_resuming_at_any_step_goes_on_with_the_same_bytes(folder, expected, step, processes):
    parts = [
        take(streams.endless(both(folder), seed=3, start_step=step, process=process,
                             processes=processes, threads=2), 1)
        for process in range(processes)
    ]  # fmt: skip
    assert digest(woven([part[0] for part in parts])) == digest(expected[step])


def test_seeds_make_other_orders_and_other_views(folder, expected):
    other = take(streams.endless(both(folder), seed=4, threads=2), 1)[0]
    assert digest(other) != digest(expected[0])
    ids = [batch["labelled"]["who"]["person_id"].tolist() for batch in (other, expected[0])]
    assert ids[0] != ids[1]


def test_the_run_s_seed_and_the_stream_s_name_decide_the_views(folder):
    """All rows of an epoch, told apart by their ids, under two seeds and two names."""
    rows = both(folder)["labelled"].rows
    drawn = []
    for seed, name in ((3, "a"), (4, "a"), (3, "b")):
        batch = take(streams.endless({name: streams.Stream(rows, LOOK, 13)}, seed=seed), 1)[0][name]
        drawn.append(batch["views"]["strong"]["mirrored"].tolist())
    assert drawn[0] != drawn[1] and drawn[0] != drawn[2]
    assert streams.stream_seed(3, "a") != streams.stream_seed(3, "b")
    assert 0 <= streams.stream_seed(2**40, "x") < 2**31


def test_every_row_comes_once_an_epoch_and_each_epoch_in_another_order(folder):
    stream = {"labelled": streams.Stream(both(folder)["labelled"].rows, LOOK, 13)}
    epochs = [
        batch["labelled"]["who"]["person_id"].tolist()
        for batch in take(streams.endless(stream, seed=0, threads=2), 3)
    ]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len(set(epochs[0])) == 13
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_row_that_comes_again_looks_different(folder):
    stream = {"labelled": streams.Stream(both(folder)["labelled"].rows, LOOK, 13)}
    seen = {}
    for batch in take(streams.endless(stream, seed=0, threads=2), 2):
        part = batch["labelled"]
        matrices = part["views"]["strong"]["from_canonical"]
        for who, matrix in zip(part["who"]["person_id"], matrices, strict=True):
            seen.setdefault(who, []).append(matrix.tolist())
    assert all(first != second for first, second in seen.values())


def test_the_ratio_is_exact_and_streams_over_the_same_rows_do_not_go_in_step(folder, expected):
    for batch in expected:
        assert len(batch["labelled"]["valid"]) == 4 and len(batch["unlabelled"]["valid"]) == 8
    rows = both(folder)["labelled"].rows
    twins = {name: streams.Stream(rows, LOOK, 13) for name in ("a", "b")}
    batch = take(streams.endless(twins, seed=0, threads=2), 1)[0]
    ids = [batch[name]["who"]["person_id"].tolist() for name in "ab"]
    assert sorted(ids[0]) == sorted(ids[1]) and ids[0] != ids[1]


def test_index_counts_the_rows_of_the_stream(folder, expected):
    for step, batch in enumerate(expected):
        assert batch["labelled"]["index"].tolist() == list(range(4 * step, 4 * step + 4))
        assert batch["unlabelled"]["index"].tolist() == list(range(8 * step, 8 * step + 8))


def test_a_batch_is_what_its_rows_are(folder, expected):
    """Every field of the batch is that of the sample made alone."""
    stream = both(folder)["unlabelled"]
    by_id = {stream.rows[i]["person_id"]: stream.rows[i] for i in range(len(stream.rows))}
    part = expected[2]["unlabelled"]
    for i, (who, index) in enumerate(zip(part["who"]["person_id"], part["index"], strict=True)):
        canvases = [np.empty((32, 24, 3), np.uint8) for _ in LOOK.views]
        alone = samples.sample(
            by_id[who], int(index), streams.stream_seed(3, "unlabelled"), LOOK, packed.COCO17,
            ("crawl", "walk"), canvases,
        )
        for (path, one), (_, many) in zip(leaves(alone), leaves(part), strict=True):
            np.testing.assert_array_equal(one, many[i], err_msg=path)


def test_batches_that_are_kept_never_change_and_dropped_ones_give_their_memory_back(folder):
    def pixels(batch):
        return batch["labelled"]["views"]["strong"]["image"]

    def address(batch):
        return pixels(batch).__array_interface__["data"][0]

    stream = {"labelled": both(folder)["labelled"]}
    kept = take(streams.endless(stream, seed=0, threads=3), 12)
    assert len({address(batch) for batch in kept}) == 12
    digests = [digest(batch) for batch in kept]
    again = streams.endless(stream, seed=0, threads=3)
    rows, addresses = [], set()
    for number, batch in zip(range(12), again, strict=False):
        addresses.add(address(batch))
        rows.append(pixels(batch)[1])  # a view of a batch holds it as well as the batch does
        if number >= 3:
            rows[number - 3] = rows[number - 3].copy()
        assert digest(batch) == digests[number]
    again.close()
    assert len(addresses) < 12
    for batch, row in zip(kept, rows, strict=True):
        np.testing.assert_array_equal(pixels(batch)[1], row)
    assert [digest(batch) for batch in kept] == digests


def test_hands_are_rows_of_their_own_and_stream_like_people(tmp_path):
    wholebody, rows = skeletons.load("wholebody133"), []
    for number, sides in enumerate((("left",), (), ("left", "right"))):
        keypoints = np.zeros((133, 3), np.float32)
        for side, x in zip(sides, (60.0, 160.0), strict=False):
            keypoints = np.maximum(keypoints, hand(side, (x, 90.0), 40.0))
        rows.append((
            packed.person_row(keypoints, (20, 20, 200, 150), number),
            packed.picture_row(packed.jpeg(np.full((180, 240, 3), 90, np.uint8)), (240, 180)),
        ))  # fmt: skip
    manifest = packed.write(tmp_path, {"train": rows}, wholebody)
    hands = samples.Hands(records.Rows(manifest, "train"))
    ids = [row[0]["person_id"] for row in rows]
    assert [(hands[i]["person_id"], hands[i]["part"]) for i in range(len(hands))] == [
        (ids[0], "left_hand"), (ids[2], "left_hand"), (ids[2], "right_hand"),
    ]  # fmt: skip
    look = samples.Look((64, 64), (("hand", augment.HAND),))
    stream = {"hands": streams.Stream(hands, look, 3)}
    batch = take(streams.endless(stream, seed=0, threads=2), 1)[0]["hands"]
    assert batch["valid"].all() and sorted(batch["part"]) == [1, 1, 2]
    # All in the places of the left hand and its wrist.
    places = sorted([*wholebody.groups["left_hand"], wholebody.keypoints.index("left_wrist")])
    assert all(np.flatnonzero(row).tolist() == places for row in batch["visible"])


# ---- finite streams --------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_sees_every_row_once_in_order_with_a_padded_tail(folder, processes):
    stream = both(folder, labelled=4)["labelled"]
    parts = [
        list(streams.finite(stream, process=process, processes=processes, threads=2))
        for process in range(processes)
    ]
    assert [len(part) for part in parts] == [4] * processes
    whole = [woven(list(step)) for step in zip(*parts, strict=True)]
    ids = np.concatenate([batch["who"]["person_id"] for batch in whole])
    valid = np.concatenate([batch["valid"] for batch in whole])
    wanted = [stream.rows.person(i)["person_id"] for i in range(13)]
    assert ids.tolist() == wanted + [""] * 3
    assert valid.tolist() == [True] * 13 + [False] * 3
    assert (whole[-1]["views"]["weak"]["image"][1:] == 0).all()
    assert not any(batch["who"]["failure"].any() for batch in whole)


# ---- damage ----------------------------------------------------------------------------------


def test_a_picture_that_does_not_decode_is_an_invalid_row_and_counted(tmp_path, caplog):
    rows = packed.drawn_rows(8)
    rows[3][1]["image"] = rows[3][1]["image"][:200]
    packed.write(tmp_path, {"train": rows, "unlabelled": rows[:3]})
    manifest = records.read_manifest(tmp_path)
    stream = {"labelled": streams.Stream(records.Rows(manifest, "train"), LOOK, 8)}
    batch = take(streams.endless(stream, seed=0, threads=2), 1)[0]["labelled"]
    bad = int(np.flatnonzero(~batch["valid"])[0])
    assert batch["valid"].sum() == 7
    assert batch["who"]["person_id"][bad] == rows[3][0]["person_id"]
    assert "truncated" in batch["who"]["failure"][bad]
    assert (batch["views"]["weak"]["image"][bad] == 0).all()
    assert (batch["visible"][bad] == 0).all()
    # One of eight is above a thousandth, but one alone says nothing about a share.
    iterator = streams.endless(stream, seed=0, threads=2)
    next(iterator)
    with pytest.raises(streams.TooManyFailures, match=r"2 of 16 rows .* 0\.10% .* truncated"):
        next(iterator)
    generous = streams.endless(stream, seed=0, threads=2, max_failed=0.2)
    assert sum(int((~b["labelled"]["valid"]).sum()) for b in take(generous, 5)) == 5


def test_a_damaged_shard_is_noticed_row_by_row(tmp_path):
    manifest = packed.write(tmp_path, {"train": packed.drawn_rows(6)}, shards=1)
    shard = tmp_path / records.shard_file("pictures", "train", 0, 1)
    data = bytearray(shard.read_bytes())
    place = data.find(b"\xff\xd8\xff")
    data[place + 700] ^= 0x10
    shard.write_bytes(data)
    stream = streams.Stream(records.Rows(manifest, "train"), LOOK, 6)
    (batch,) = streams.finite(stream, threads=2)
    assert 1 <= (~batch["valid"]).sum() < 6
    assert all(batch["who"]["failure"][~batch["valid"]])


# ---- refusals --------------------------------------------------------------------------------


def test_a_batch_must_divide_among_the_processes(folder):
    with pytest.raises(ValueError, match="a batch of 4 for 3 processes; want a multiple"):
        streams.endless(both(folder), seed=0, processes=3)


def test_a_process_that_is_not_there_and_a_look_without_views_are_refused(folder):
    with pytest.raises(ValueError, match="process 2 of 2; they count from 0"):
        streams.endless(both(folder), seed=0, process=2, processes=2)
    with pytest.raises(ValueError, match="without views"):
        streams.finite(both(folder, look=samples.Look((24, 32), ()))["labelled"])


def test_the_allowed_failures_grow_with_the_rows(tmp_path, monkeypatch):
    """A tenth of the rows fails: a quarter is allowed for ever, a twentieth never."""
    monkeypatch.setattr(streams, "FEWEST_FOR_A_SHARE", 4)
    rows = packed.drawn_rows(10)
    rows[3][1]["image"] = rows[3][1]["image"][:200]
    manifest = packed.write(tmp_path, {"train": rows}, shards=1)
    stream = {"a": streams.Stream(records.Rows(manifest, "train"), LOOK, 10)}
    assert len(take(streams.endless(stream, seed=0, max_failed=0.25), 6)) == 6
    with pytest.raises(streams.TooManyFailures):
        take(streams.endless(stream, seed=0, max_failed=0.05), 6)


def test_a_shard_cut_at_a_block_s_end_stops_nothing(tmp_path):
    manifest = packed.write(tmp_path, {"train": packed.drawn_rows(6)}, shards=1)
    for table in records.TABLES:
        shard = tmp_path / records.shard_file(table, "train", 0, 1)
        whole = shard.read_bytes()
        shard.write_bytes(whole[:65536])
        stream = streams.Stream(records.Rows(manifest, "train"), LOOK, 6)
        (batch,) = streams.finite(stream, threads=2)
        assert not batch["valid"].any() and all(batch["who"]["failure"])
        shard.write_bytes(whole)


def test_an_empty_split_is_refused(tmp_path):
    manifest = packed.write(tmp_path, {"train": []})
    stream = {"labelled": streams.Stream(records.Rows(manifest, "train"), LOOK, 4)}
    with pytest.raises(ValueError, match="without rows"):
        streams.endless(stream, seed=0)


def test_rows_travel_to_other_processes(folder):
    rows = both(folder)["labelled"].rows
    twin = pickle.loads(pickle.dumps(rows))
    assert twin[5]["person_id"] == rows[5]["person_id"] and len(twin) == len(rows)


def test_ids_name_each_picture_of_each_row(folder):
    rows = both(folder)["unlabelled"].rows
    assert max(Counter(rows[i]["picture_id"] for i in range(len(rows))).values()) == 1
