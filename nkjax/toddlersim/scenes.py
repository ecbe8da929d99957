"""Scenes: who is where, what stands around, and from where the camera looks."""

from typing import NamedTuple

import numpy as np

from nkjax import skeleton
from nkjax.toddlersim import camera as cameras
from nkjax.toddlersim import casting, solids
from nkjax.toddlersim.camera import Camera
from nkjax.toddlersim.looks import clothes, rooms
from nkjax.toddlersim.looks.clothes import Outfit
from nkjax.toddlersim.looks.paints import Light, Paint
from nkjax.toddlersim.looks.rooms import Piece, Room
from nkjax.toddlersim.people import flesh, poses
from nkjax.toddlersim.people.acts import Act
from nkjax.toddlersim.people.bodies import Body
from nkjax.toddlersim.solids import Solids

# How pictures are taken, by people of training and of test; they overlap and differ (method 6.5).
# elevation: degrees from which the camera looks down. distance: m, of a toddler (adults 1.8 times).
# fill: of the picture that the person takes. cut: share of pictures in which some of it is outside.
VIEWS = {
    False: {"elevation": (-8, 32), "distance": (1.6, 3.2), "fill": (0.6, 0.92), "roll": 4,
            "cut": 0.10, "occluder": 0.35, "bystander": 0.20},
    True: {"elevation": (2, 48), "distance": (1.8, 3.6), "fill": (0.5, 0.88), "roll": 6,
           "cut": 0.12, "occluder": 0.40, "bystander": 0.25},
}  # fmt: skip
# 65 joints of body, feet and hands.
KEYPOINTS = tuple(name for name in skeleton.load("wholebody133").keypoints
                  if not name.startswith("face-"))  # fmt: skip
UPPER = np.array([i for i, name in enumerate(KEYPOINTS) if i < 11 or "hand" in name])
CLOSE_UP = 0.35  # share of pictures of a reaching hand that are taken of the hands, from near
FOCAL = (0.65, 2.6)  # of the picture's height: 75 to 22 degrees
FEWEST_SEEN = 6  # of the 17 body joints; in a close-up, of the upper body's
NEAREST = 0.3  # m between camera and anything
GAP = 0.02  # m likewise in any direction, also behind it
BYSTANDER = 0.9  # m between camera and somebody else


class Person(NamedTuple):
    """Somebody to be put into a scene: measures, act or pose in their own place, clothes."""

    body: Body
    pose: poses.Pose
    outfit: Outfit


class Scene(NamedTuple):
    """Everything the camera sees. joints_k3: the target's, metres, world; flesh_k: see flesh."""

    solids: Solids
    paints: tuple[Paint, ...]
    light: Light
    camera: Camera
    joints_k3: np.ndarray
    flesh_k: np.ndarray


class NotSeen(ValueError):
    """Too little of the target would be in the picture: draw again."""


def draw_camera(rng, joints_k3, facing, views, room: Room, size_wh, zoom_on=None) -> Camera:
    """Draw a camera that sees a person; mostly from the front or the side, as labs film.

    joints_k3: metres. facing: degrees about z to which the person faces. views: a row of VIEWS.
    zoom_on: indices of the joints to be seen, None for all. Raises NotSeen where no camera fits.
    """
    seen = joints_k3 if zoom_on is None else joints_k3[zoom_on]
    middle = (seen.min(0) + seen.max(0)) / 2
    around = {"front": rng.normal(0, 25), "side": rng.choice([-90, 90]) + rng.normal(0, 22),
              "any": rng.uniform(-180, 180)}  # fmt: skip
    azimuth = np.radians(facing + around[rng.choice(["front", "side", "any"], p=[0.35, 0.35, 0.3])])
    elevation = np.radians(rng.uniform(*views["elevation"]))
    flat = np.cos(elevation)
    way = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    size = max(np.ptp(joints_k3, axis=0).max(), 0.5)  # lying takes as much room as standing
    distance = min(rng.uniform(*views["distance"]) * max(size / 0.85, 1) ** 0.8,
                   0.96 * _way_to_wall(middle, way, room))  # fmt: skip
    position = middle + distance * way
    if position[2] < 0.1 or distance < 1.9 * size:
        raise NotSeen("the camera would be in the floor, or too near")
    roll = rng.normal(0, views["roll"])
    aim = cameras.look_at(position, middle, 1.0, (1, 1), roll)
    aim = cameras.look_at(position, _middle_ray(aim, seen), 1.0, (1, 1), roll)
    flat_points, depth = cameras.project(aim, seen)
    if depth.min() < NEAREST:
        raise NotSeen("somebody would touch the camera")
    margin = 0.07 * size / distance  # joints are inside the flesh
    extent = np.ptp(flat_points, axis=0) + 2 * margin
    widest = (np.array(size_wh) / extent).min()
    wanted = widest * rng.uniform(*views["fill"])
    if rng.random() < views["cut"]:
        wanted = widest * rng.uniform(1.1, 1.7)
    focal = float(np.clip(wanted, *(size_wh[1] * np.array(FOCAL))))
    if focal > max(wanted, widest):
        raise NotSeen("the person would not fit into the picture")
    slack = np.maximum(np.array(size_wh) - extent * focal, 0.04 * np.array(size_wh)) / 2
    shift = rng.uniform(-0.8, 0.8, 2) * slack / focal
    target = position + aim.axes_33.T @ np.array([*shift, 1.0])
    return cameras.look_at(position, target, focal, size_wh, roll)


def _middle_ray(camera: Camera, points_n3):
    """Return a point on the ray through the middle of what points take up in the picture."""
    flat, depth = cameras.project(camera, points_n3)
    if depth.min() <= 0:
        raise NotSeen("somebody would be behind the camera")
    return camera.position_3 + camera.axes_33.T @ np.array([*(flat.min(0) + flat.max(0)) / 2, 1.0])


def _way_to_wall(point_3, way_3, room: Room) -> float:
    """Return how many metres it is from a point to the wall, floor or ceiling behind it."""
    (which,) = np.flatnonzero(room.solids.kind_p == solids.ROOM)
    frame, half = room.solids.frame_p33[which], room.solids.size_p3[which]
    own = frame @ (point_3 - room.solids.centre_p3[which])
    step = frame @ way_3
    with np.errstate(divide="ignore"):
        return float(np.where(step, (half - own * np.sign(step)) / np.abs(step), np.inf).min())


def assemble(rng, target: Person, act: Act, holder: Outfit | None, bystander: Person | None,
             room: Room, size_wh, held_out: bool) -> Scene:  # fmt: skip
    """Put people, furniture and a camera into a room.

    Everybody's pose is in the world already. Raises NotSeen where too little of the target shows.
    """
    views, kind = VIEWS[held_out], target.body.kind
    figure = poses.pose_body(target.body, target.pose)
    joints = np.stack([figure.joints[name] for name in KEYPOINTS])
    forward = figure.frames["chest"][:, 0]
    facing = np.degrees(np.arctan2(forward[1], forward[0]))
    close = act.grasp != "none" and kind == "toddler" and rng.random() < CLOSE_UP
    camera = draw_camera(rng, joints, facing, views, room, size_wh, UPPER if close else None)
    things = [Piece(room.solids, room.paints),
              rooms.painted(rng, act.things, kind, held_out),
              rooms.painted_toy(rng, act.toy, held_out)]  # fmt: skip
    if rng.random() < views["occluder"]:
        things.append(_occluder(rng, kind, held_out, joints, camera))
    people = [(target, solids.TARGET)]
    if act.holder is not None:
        people.append((Person(*act.holder, holder), 2))
    if bystander is not None:
        _check_away(bystander, camera)
        people.append((bystander, 3))
    for person, number in people:
        bare = flesh.solids_of(person.body, poses.pose_body(person.body, person.pose))
        things.append(Piece(*clothes.wear(bare, person.outfit, number, 0)))
    whole = rooms.join(*things)
    scene = Scene(whole.solids, whole.paints, room.light, camera, joints,
                  flesh.flesh_before(target.body, KEYPOINTS))  # fmt: skip
    _check_seen(scene)
    return scene


def _occluder(rng, kind, held_out, joints_k3, camera: Camera) -> Piece:
    """Draw a thing on the floor between the camera and somebody, touching neither, or nothing."""
    piece = rooms.draw_occluder(rng, kind, held_out)
    reach = np.linalg.norm(piece.solids.centre_p3[:, :2], axis=1) + piece.solids.size_p3.max(1)
    radius = float(reach.max())
    person, eye = joints_k3.mean(0)[:2], camera.position_3[:2]
    for _ in range(4):
        place = person + rng.uniform(0.25, 0.7) * (eye - person) + rng.normal(0, 0.15, 2)
        turn = poses.turn_z(rng.uniform(-180, 180))
        free = np.linalg.norm(joints_k3[:, :2] - place, axis=1).min() - radius
        if free > 0.05 and np.linalg.norm(eye - place) > radius + NEAREST:
            return piece._replace(solids=solids.moved(piece.solids, turn, (*place, 0)))
    return Piece(solids.none(), ())


def _check_away(person: Person, camera: Camera) -> None:
    joints = np.stack(list(poses.pose_body(person.body, person.pose).joints.values()))
    if np.linalg.norm(joints - camera.position_3, axis=1).min() < BYSTANDER:
        raise NotSeen("somebody else would fill the picture")


def _holds(made: Solids, place_3) -> bool:
    """Return whether a place is inside a solid, or within GAP of it; cones count by their box."""
    own = np.einsum("pij,pj->pi", made.frame_p33, place_3 - made.centre_p3)
    size, thick = made.size_p3 + GAP, made.size_p3[:, 1:].max(1) + GAP
    ball = ((own / size) ** 2).sum(1) < 1
    box = (np.abs(own) < size).all(1)
    cone = (np.abs(own[:, 0] - size[:, 0] / 2) < size[:, 0] / 2 + thick)
    cone &= np.hypot(own[:, 1], own[:, 2]) < thick
    kinds = [(solids.BALL, ball), (solids.BOX, box), (solids.CONE, cone)]
    return any((held & (made.kind_p == kind)).any() for kind, held in kinds)


def _check_seen(scene: Scene) -> None:
    camera, wh = scene.camera, np.array(scene.camera.size_wh)
    if _holds(scene.solids, camera.position_3):  # from within, it would not be seen
        raise NotSeen("the camera would be inside something")
    corners = np.stack(np.meshgrid(*(np.linspace(0, n - 1, 5) for n in wh)), -1).reshape(-1, 2)
    rays = cameras.rays(camera, corners)
    depth, _ = casting.first_hits(camera.position_3, camera.position_3 + rays, scene.solids)
    if depth.min() < NEAREST:
        raise NotSeen("something would touch the camera")
    body = slice(0, 17)
    found = casting.keypoints(camera, scene.solids, scene.joints_k3[body], scene.flesh_k[body],
                              solids.TARGET)  # fmt: skip
    if (found[:, 2] == 2).sum() < FEWEST_SEEN:
        raise NotSeen("too little of the person would be seen")
