"""The demo set as data: which photos, under which licence, and the boxes drawn on them by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Derivation = Literal["as_it_is", "blurred", "blackened", "turned", "truncated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoLicence:
    """A licence, as `licenses` of the COCO file has it."""

    name: str
    url: str


CC0 = DemoLicence(name="CC0 1.0", url="https://creativecommons.org/publicdomain/zero/1.0/")
PUBLIC_DOMAIN = DemoLicence(
    name="Public domain", url="https://creativecommons.org/publicdomain/mark/1.0/"
)
NO_KNOWN_COPYRIGHT = DemoLicence(
    name="No known copyright restrictions",
    url="https://rightsstatements.org/vocab/NKC/1.0/",
)
CC_BY = DemoLicence(name="CC BY 2.0", url="https://creativecommons.org/licenses/by/2.0/")

LICENCES = (CC0, PUBLIC_DOMAIN, NO_KNOWN_COPYRIGHT, CC_BY)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPhoto:
    """A photograph that an installed package brings along.

    Attributes:
        package: the import package that has it.
        member: its path inside that package.
        size_hw: height and width.
        licence, credit: as the package's own notes state them.
    """

    package: str
    member: str
    size_hw: tuple[int, int]
    licence: DemoLicence
    credit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoBox:
    """A box in the picture as it is displayed, tight around what can be seen of the object."""

    category: str
    box_xyxy: tuple[float, float, float, float]
    is_crowd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoImage:
    """One file of the set.

    Attributes:
        file_name: below `images/`.
        photo: where its pixels come from.
        derivation: what is done to them; see `engine.demo`.
        crop_xyxy: the part of the photo that is taken, before anything else is done; None: all.
        note: why the set has this picture, if not for what it shows.
        boxes: in the frame of the finished picture.
    """

    file_name: str
    photo: DemoPhoto
    derivation: Derivation = "as_it_is"
    crop_xyxy: tuple[int, int, int, int] | None = None
    note: str = ""
    boxes: tuple[DemoBox, ...] = ()

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width as displayed."""
        if self.crop_xyxy is None:
            return self.photo.size_hw
        x1, y1, x2, y2 = self.crop_xyxy
        return y2 - y1, x2 - x1


def _box(category: str, x1: float, y1: float, x2: float, y2: float) -> DemoBox:
    return DemoBox(category=category, box_xyxy=(x1, y1, x2, y2))


ASTRONAUT = DemoPhoto(
    package="skimage",
    member="data/astronaut.png",
    size_hw=(512, 512),
    licence=PUBLIC_DOMAIN,
    credit="Eileen Collins, NASA Great Images",
)
CAT = DemoPhoto(
    package="skimage",
    member="data/chelsea.png",
    size_hw=(300, 451),
    licence=CC0,
    credit="Chelsea the cat, Stefan van der Walt",
)
COFFEE = DemoPhoto(
    package="skimage",
    member="data/coffee.png",
    size_hw=(400, 600),
    licence=CC0,
    credit="Rachel Michetti, courtesy of Pikolo Espresso Bar",
)
ROCKET = DemoPhoto(
    package="skimage",
    member="data/rocket.jpg",
    size_hw=(427, 640),
    licence=PUBLIC_DOMAIN,
    credit="DSCOVR on Falcon 9, SpaceX",
)
CAMERAMAN = DemoPhoto(
    package="skimage",
    member="data/camera.png",
    size_hw=(512, 512),
    licence=CC0,
    credit="Lav Varshney",
)
COINS = DemoPhoto(
    package="skimage",
    member="data/coins.png",
    size_hw=(303, 384),
    licence=NO_KNOWN_COPYRIGHT,
    credit="Greek coins from Pompeii, Brooklyn Museum Collection",
)
CLOCK = DemoPhoto(
    package="skimage",
    member="data/clock_motion.png",
    size_hw=(300, 400),
    licence=PUBLIC_DOMAIN,
    credit="Stefan van der Walt",
)
GALAXIES = DemoPhoto(
    package="skimage",
    member="data/hubble_deep_field.jpg",
    size_hw=(872, 1000),
    licence=PUBLIC_DOMAIN,
    credit="Hubble eXtreme Deep Field, NASA",
)
RETINA = DemoPhoto(
    package="skimage",
    member="data/retina.jpg",
    size_hw=(1411, 1411),
    licence=CC0,
    credit="Mikael Häggström, Medical gallery 2014",
)
PAGODA = DemoPhoto(
    package="sklearn",
    member="datasets/images/china.jpg",
    size_hw=(427, 640),
    licence=CC_BY,
    credit="danielbuechele, flickr.com/photos/danielbuechele/6061409035",
)
FLOWER = DemoPhoto(
    package="sklearn",
    member="datasets/images/flower.jpg",
    size_hw=(427, 640),
    licence=CC_BY,
    credit="vultilion, flickr.com/photos/vultilion/6056698931",
)

DEMO_IMAGES = (
    DemoImage(
        file_name="astronaut.png",
        photo=ASTRONAUT,
        boxes=(
            _box("person", 18, 15, 365, 512),
            _box("face", 172, 62, 278, 189),
            _box("helmet", 277, 343, 512, 512),
            _box("rocket", 354, 0, 457, 277),
            _box("flag", 0, 0, 98, 512),
            _box("badge", 133, 348, 208, 423),
            _box("badge", 279, 340, 330, 377),
        ),
    ),
    DemoImage(
        file_name="cat.png",
        photo=CAT,
        boxes=(
            _box("cat", 0, 0, 399, 300),
            _box("eye", 137, 86, 206, 148),
            _box("nose", 233, 226, 291, 266),
        ),
    ),
    DemoImage(
        file_name="coffee.png",
        photo=COFFEE,
        boxes=(
            _box("cup", 173, 18, 409, 307),
            _box("saucer", 76, 68, 480, 390),
            _box("spoon", 326, 66, 425, 326),
            _box("coffee", 204, 95, 370, 193),
        ),
    ),
    DemoImage(
        file_name="launch_pad.jpg",
        photo=ROCKET,
        note="one box lies outside the picture on purpose",
        boxes=(
            _box("rocket", 309, 127, 336, 407),
            _box("tower", 0, 0, 88, 427),
            _box("tower", 163, 122, 205, 427),
            _box("tower", 438, 122, 480, 427),
            _box("tower", 560, 0, 640, 427),
            _box("rocket", 700, 100, 760, 260),
        ),
    ),
    DemoImage(
        file_name="cameraman.png",
        photo=CAMERAMAN,
        boxes=(
            _box("person", 0, 63, 331, 512),
            _box("camera", 251, 138, 326, 187),
            _box("tripod", 230, 186, 405, 512),
            _box("building", 411, 117, 432, 194),
            _box("building", 451, 161, 471, 196),
        ),
    ),
    DemoImage(
        file_name="coins.png",
        photo=COINS,
        note="two rows of coins are boxed one by one, the other two as one crowd",
        boxes=(
            _box("coin", 22, 33, 67, 74),
            _box("coin", 80, 38, 120, 74),
            _box("coin", 131, 28, 179, 73),
            _box("coin", 192, 29, 240, 73),
            _box("coin", 255, 33, 297, 72),
            _box("coin", 305, 15, 365, 72),
            _box("coin", 25, 104, 67, 144),
            _box("coin", 84, 107, 122, 145),
            _box("coin", 134, 109, 174, 146),
            _box("coin", 186, 105, 226, 144),
            _box("coin", 245, 95, 296, 144),
            _box("coin", 317, 105, 356, 145),
            DemoBox(category="coin", box_xyxy=(18, 155, 381, 290), is_crowd=True),
        ),
    ),
    DemoImage(
        file_name="clock.png",
        photo=CLOCK,
        boxes=(_box("clock", 141, 92, 284, 216),),
    ),
    DemoImage(
        file_name="galaxies.jpg",
        photo=GALAXIES,
        boxes=(
            _box("galaxy", 107, 380, 142, 420),
            _box("galaxy", 708, 454, 748, 495),
            _box("galaxy", 963, 474, 995, 506),
            _box("galaxy", 389, 61, 425, 89),
            _box("galaxy", 274, 94, 310, 126),
            _box("star", 731, 552, 779, 601),
        ),
    ),
    DemoImage(
        file_name="retina.jpg",
        photo=RETINA,
        boxes=(
            _box("retina", 10, 8, 1400, 1399),
            _box("optic disc", 118, 540, 312, 755),
        ),
    ),
    DemoImage(
        file_name="pagoda.jpg",
        photo=PAGODA,
        boxes=(
            _box("building", 62, 29, 373, 427),
            _box("tree", 546, 135, 640, 427),
            _box("tree", 0, 134, 76, 278),
            _box("boat", 465, 272, 470, 276),
        ),
    ),
    DemoImage(
        file_name="flower.jpg",
        photo=FLOWER,
        boxes=(
            _box("flower", 168, 85, 446, 360),
            _box("flower", 287, 374, 471, 427),
            _box("bud", 583, 393, 621, 427),
        ),
    ),
    DemoImage(
        file_name="cat_again.png",
        photo=CAT,
        note="the very bytes of cat.png under another name, with a box that cat.png lacks",
        boxes=(_box("eye", 298, 110, 344, 164),),
    ),
    DemoImage(
        file_name="launch_phone.jpg",
        photo=ROCKET,
        derivation="turned",
        crop_xyxy=(150, 60, 500, 427),
        note="stored sideways with EXIF orientation 6; the boxes are those of the upright picture",
        boxes=(
            _box("rocket", 159, 67, 186, 347),
            _box("tower", 13, 62, 55, 367),
            _box("tower", 288, 62, 330, 367),
        ),
    ),
    DemoImage(
        file_name="astronaut_out_of_focus.jpg",
        photo=ASTRONAUT,
        derivation="blurred",
        note="blurred beyond use",
        boxes=(_box("person", 18, 15, 365, 512),),
    ),
    DemoImage(
        file_name="coffee_in_the_dark.jpg",
        photo=COFFEE,
        derivation="blackened",
        note="hardly any light",
        boxes=(_box("cup", 173, 18, 409, 307),),
    ),
    DemoImage(
        file_name="pagoda_truncated.jpg",
        photo=PAGODA,
        derivation="truncated",
        note="the file ends half way",
        boxes=(_box("building", 62, 29, 373, 427),),
    ),
)
"""In the order in which they are numbered, from 1."""
