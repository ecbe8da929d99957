"""The simulated world: picture `index` of a domain, with its labels and its truth.

A picture depends on (seed, domain, role, index) alone. Eight pictures in a row are of one subject,
in two sessions of four; a session keeps its clothes and its room. The people of labelled,
unlabelled and test pictures are different ones, and test people look, are built and are filmed
differently (`held_out`).
"""

import functools
from typing import NamedTuple

import numpy as np

from nkjax import skeleton
from nkjax.toddlersim import camera as cameras
from nkjax.toddlersim import casting, scenes, solids
from nkjax.toddlersim.examples import DOMAINS, ROLES, Example, Labels, Maps
from nkjax.toddlersim.looks import clothes, paints, photo, rooms
from nkjax.toddlersim.looks.clothes import Outfit
from nkjax.toddlersim.looks.rooms import Room
from nkjax.toddlersim.people import acts, adults, bodies, poses, postures, walking
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.scenes import Person, Scene

PER_SUBJECT, PER_SESSION = 8, 4
CLEAR = {"toddler": 1.3, "adult": 1.5}  # m around the person without furniture
TRIES = 60
SITES = ("lab", "home", "clinic")
# Of test people so many wear and live among what training never shows. If all did, that alone would
# cost a small network more than half of its keypoints, and hide what labels and methods win.
STRANGE = 0.5


class Session(NamedTuple):
    """What the pictures of a session share: whose they are, who else is there, the room."""

    body: Body
    outfit: Outfit
    adult: Body
    adult_outfit: Outfit
    room: Room
    site: str


def _skeleton() -> skeleton.Skeleton:
    """Return COCO-WholeBody's keypoints without the face: 17 body, 6 feet, 2 x 21 hands."""
    whole = skeleton.to_json(skeleton.load("wholebody133"))
    kept = [i for i, name in enumerate(whole["keypoints"]) if not name.startswith("face-")]
    names = {whole["keypoints"][i] for i in kept}
    return skeleton.parse({
        "name": "toddlersim65",
        "keypoints": [whole["keypoints"][i] for i in kept],
        "limbs": [limb for limb in whole["limbs"] if names.issuperset(limb)],
        "sigmas": [whole["sigmas"][i] for i in kept],
    }, "toddlersim65")  # fmt: skip


SKELETON = _skeleton()


def example(domain: str, role: str, index: int, size_wh, seed: int) -> Example:
    """Make one picture with everything that is known of it.

    domain: of DOMAINS; role: of ROLES; index: from 0, within domain and role; size_wh: px.
    """
    session, act, scene, rng = draw(domain, role, index, size_wh, seed)
    hits = casting.cast(scene.camera, scene.solids)
    maps = _maps(hits, scene)
    points = casting.keypoints(scene.camera, scene.solids, scene.joints_k3, scene.flesh_k,
                              solids.TARGET)  # fmt: skip
    light = paints.shadow_of(hits, scene.solids, scene.camera, scene.light)
    rgb = paints.shade(hits, scene.solids, scene.paints, scene.camera, scene.light, light)
    labels = Labels(
        domain, role, index, subject_of(domain, role, index), f"s{_session_of(index) + 1}",
        session.site, session.body.age_months, act.posture, act.grasp,
    )  # fmt: skip
    own = cameras.to_camera(scene.camera, scene.joints_k3)
    ways = np.stack([act.forward_3, (0, 0, 1)]) @ scene.camera.axes_33.T
    box, others = _boxes(maps, points)
    image = photo.develop(rgb, rng, role == "test")
    return Example(image, maps, scene.camera, points, own, ways, box, others, labels)


def draw(domain: str, role: str, index: int, size_wh, seed: int):
    """Draw what one picture shows: returns its session, its act, its scene, and the generator that
    its camera goes on with. See `example`; RuntimeError where nothing can be seen in many tries."""
    session = draw_session(domain, role, index // PER_SESSION, seed)
    # Outside of the loop: what is seen less easily must not become rarer.
    rng = _stream(seed, domain, role, "posture", index)
    posture = postures.draw_posture(rng, domain, session.body.age_months)
    for attempt in range(TRIES):
        rng = _stream(seed, domain, role, "picture", index, attempt)
        try:
            return session, *_draw(rng, posture, session, size_wh, role == "test"), rng
        except (scenes.NotSeen, acts.NotSound):
            continue
    raise RuntimeError(f"{domain} {role} {index}: no {posture} to be seen in {TRIES} tries")


def subject_of(domain: str, role: str, index: int) -> str:
    """Return the name of the subject of a picture."""
    return f"{domain[:2]}{role[0]}{index // PER_SUBJECT:04d}".upper()


def _session_of(index) -> int:
    return index % PER_SUBJECT // PER_SESSION


@functools.lru_cache(maxsize=4)
def draw_session(domain: str, role: str, number: int, seed: int) -> Session:
    """Draw who and what the pictures of the session of this number share."""
    held_out, kind = role == "test", "adult" if domain == "adult" else "toddler"
    rng = _stream(seed, domain, role, "subject", number * PER_SESSION // PER_SUBJECT)
    age = float(rng.integers(20 * 12, 70 * 12)) if kind == "adult" else postures.draw_age(rng)
    body = bodies.draw(rng, kind, age, held_out)
    strange = held_out and rng.random() < STRANGE
    looks = clothes.draw_outfit(rng, kind, strange)
    site = SITES[rng.integers(len(SITES))]
    rng = _stream(seed, domain, role, "session", number)
    outfit = clothes.same_person(looks, clothes.draw_outfit(rng, kind, strange))
    adult = bodies.draw(rng, "adult", float(rng.integers(20 * 12, 60 * 12)), held_out)
    adult_outfit = clothes.draw_outfit(rng, "adult", strange)
    room = rooms.draw_room(rng, domain, strange, np.zeros(2), CLEAR[kind])
    return Session(body, outfit, adult, adult_outfit, room, site)


def _draw(rng, posture, session: Session, size_wh, held_out) -> tuple[Act, Scene]:
    act = postures.draw(rng, posture, session.body, session.adult)
    act = _turned(act, poses.turn_z(rng.uniform(-180, 180)), (0, 0, 0))
    bystander = None
    if rng.random() < scenes.VIEWS[held_out]["bystander"]:
        bystander = _bystander(rng, session, act, held_out)
    target = Person(session.body, act.pose, session.outfit)
    holder = session.adult_outfit if act.holder else None
    room = session.room
    return act, scenes.assemble(rng, target, act, holder, bystander, room, size_wh, held_out)


def _bystander(rng, session: Session, act: Act, held_out) -> Person:
    """Draw an adult, or beside a child sometimes another, who stands a step away.

    Among adults there is no child: who pre-trains on adults must never have seen one.
    """
    kind = "toddler" if session.body.kind == "toddler" and rng.random() < 0.3 else "adult"
    age = float(rng.integers(240, 720)) if kind == "adult" else postures.draw_age(rng)
    body = bodies.draw(rng, kind, age, held_out)
    other = adults.stand(rng, body) if kind == "adult" else walking.medium_guard_walk(rng, body)
    angle = rng.uniform(-np.pi, np.pi)
    away = rng.uniform(0.9, 1.25) + 0.3 * (session.body.kind == "adult" or act.holder is not None)
    place = (away * np.cos(angle), away * np.sin(angle), 0)
    other = _turned(other, poses.turn_z(rng.uniform(-180, 180)), place)
    return Person(body, other.pose, clothes.draw_outfit(rng, kind, held_out))


def _turned(act: Act, turn_33, shift_3) -> Act:
    """Turn an act about the z axis of the world, then shift it along the floor."""

    def move(pose):
        place = turn_33 @ pose.place_3 + shift_3
        return pose._replace(place_3=place, turn_33=turn_33 @ pose.turn_33)

    holder = act.holder and (act.holder[0], move(act.holder[1]))
    return act._replace(
        pose=move(act.pose), things=solids.moved(act.things, turn_33, shift_3),
        toy=solids.moved(act.toy, turn_33, shift_3), holder=holder,
        forward_3=turn_33 @ act.forward_3,
    )  # fmt: skip


def _maps(hits, scene: Scene) -> Maps:
    known = hits.solid_hw >= 0
    which = np.where(known, hits.solid_hw, 0)
    return Maps(
        np.where(known, hits.depth_hw, 0).astype(np.float32),
        hits.normal_hw3.astype(np.float32),
        np.where(known, scene.solids.part_p[which], 0).astype(np.uint8),
        np.where(known, scene.solids.person_p[which], 0).astype(np.uint8),
    )


def _boxes(maps: Maps, points_k3):
    """Return the box of the target and those (n, 4) of the others, x, y, w, h px."""
    places = [points_k3[points_k3[:, 2] > 0, :2], _pixels(maps.people_hw == solids.TARGET)]
    others = [_box(_pixels(maps.people_hw == person))
              for person in np.unique(maps.people_hw[maps.people_hw > solids.TARGET])]  # fmt: skip
    return _box(np.concatenate(places)), np.array(others).reshape(-1, 4)


def _pixels(mask_hw):
    return np.argwhere(mask_hw)[:, ::-1].astype(float)


def _box(points_n2):
    low, high = points_n2.min(0), points_n2.max(0)
    return np.concatenate([low, high - low])


def _stream(seed, domain, role, what, *numbers) -> np.random.Generator:
    """Return random numbers that belong to one thing of the world alone."""
    streams = ("subject", "session", "posture", "picture")
    names = (DOMAINS.index(domain), ROLES.index(role), streams.index(what))
    return np.random.default_rng([int(seed), *names, *numbers])
