"""What a layer would put on the disk, before it does."""

import gzip
import io
import tarfile
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.images import survey
from nodeagent.images.errors import BadImage, ImageProblem, TooLarge
from nodeagent.images.survey import Room, Survey

TAR = "application/vnd.oci.image.layer.v1.tar"
FORMS: dict[str, Callable[[bytes], bytes]] = {
    TAR: bytes,
    TAR + "+gzip": gzip.compress,
    TAR + "+zstd": zstandard.ZstdCompressor().compress,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": gzip.compress,
}


def tar(*entries: tarfile.TarInfo | tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for each in entries:
            if isinstance(each, tarfile.TarInfo):
                made.addfile(each)
            else:
                info = tarfile.TarInfo(each[0])
                info.size = len(each[1])
                made.addfile(info, io.BytesIO(each[1]))
    return out.getvalue()


def of(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.pax_headers = kind, link, dict(pax)
    return info


def look(data: bytes, room: Room | None = None, media_type: str = TAR, bite: int = 10_000) -> Survey:
    made = Survey("sha256:12", media_type, room or Room())
    for at in range(0, len(data), bite):
        made.feed(data[at : at + bite])
    made.close()
    return made


@pytest.mark.parametrize("media_type", FORMS)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_entries_and_bytes_are_counted_in_every_form(media_type: str, form: int) -> None:
    plain = tar(("a", b"x" * 700), of("d", tarfile.DIRTYPE), ("n" * 200, b"y"), of("l", tarfile.SYMTYPE, "t" * 300), form=form)
    for bite in (1, 37, 512, 100_000):
        found = look(FORMS[media_type](plain), media_type=media_type, bite=bite)
        assert (found.entries, found.unpacked) == (4, len(plain))


@given(
    st.lists(st.tuples(st.text("ab/", min_size=1, max_size=120), st.binary(max_size=2000)), max_size=20), st.integers(1, 5000)
)
def test_it_counts_what_pythons_own_reader_finds(files: list[tuple[str, bytes]], bite: int) -> None:
    data = tar(*files)
    with tarfile.open(fileobj=io.BytesIO(data)) as read:
        assert look(data, bite=bite).entries == len(read.getmembers())


def test_several_gzip_members_are_one_layer() -> None:
    plain = tar(("a", b"x" * 5000), ("b", b"y" * 5000))
    parts = gzip.compress(plain[:3000]) + gzip.compress(plain[3000:]) + b"\0" * 100
    assert look(parts, media_type=TAR + "+gzip").entries == 2


@pytest.mark.parametrize("pack", [FORMS[TAR + "+gzip"], FORMS[TAR + "+zstd"]])
def test_a_bomb_is_found_before_it_is_unpacked(pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    media_type = TAR + ("+gzip" if pack is gzip.compress else "+zstd")
    data = pack(tar(("zeros", bytes(20_000_000))))
    with pytest.raises(TooLarge, match="more than 5000000 bytes"):
        look(data, Room(bytes=5_000_000), media_type)
    monkeypatch.setattr(survey, "FREE_BYTES", 1_000_000)
    with pytest.raises(TooLarge, match="over 200 times"):
        look(data, media_type=media_type)


def test_holes_count_as_what_they_are() -> None:
    for key in ("GNU.sparse.realsize", "GNU.sparse.size"):
        with pytest.raises(TooLarge):
            look(tar(of("sparse", **{key: str(2**40)})))


def test_a_layer_of_very_many_files_is_refused() -> None:
    with pytest.raises(TooLarge, match="more than 10 files"):
        look(tar(*(of(f"f{number}") for number in range(11))), Room(entries=10))


def test_the_layers_of_an_image_share_its_room() -> None:
    room = Room(entries=3)
    look(tar(of("a"), of("b")), room)
    with pytest.raises(TooLarge, match="more than 1 files"):
        look(tar(of("c"), of("d")), room)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/..", "a/.wh...", ".wh..", "a/.wh.", "x" * 300, "/".join(["y" * 200] * 30)]
)
def test_a_name_that_no_image_needs_is_refused(name: str) -> None:
    with pytest.raises(BadImage):
        look(tar(of(name)))


@pytest.mark.parametrize("name", ["/etc/passwd", "./a", "a/.wh.b", ".wh..wh..opq", "..a/b..", "x" * 255])
def test_a_name_that_images_have_passes(name: str) -> None:
    assert look(tar(of(name))).entries == 1


@pytest.mark.parametrize("media_type", FORMS)
def test_what_is_no_layer_is_said_so(media_type: str) -> None:
    with pytest.raises(BadImage):
        look(b"\x01junk" * 1000, media_type=media_type)


@given(st.binary(max_size=3000), st.sampled_from(list(FORMS)))
def test_nothing_but_an_image_problem_ever_comes_out(data: bytes, media_type: str) -> None:
    header = tar(("a", b"x"))[:512]
    for each in (data, header + data, header[:100] + data):
        try:
            look(each, media_type=media_type)
        except ImageProblem:
            pass
